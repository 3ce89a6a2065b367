"""``attnc completion``: what a shell must know to complete the words of the command line.

The scripts are made of the parser itself, so that no command or option is missing from them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnc.commands.options import Commands

SHELLS = ("bash", "zsh", "fish")
HINTS = {
    "bash": 'eval "$(attnc completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(attnc completion zsh)"   # in ~/.zshrc, after compinit',
    "fish": "attnc completion fish | source   # in ~/.config/fish/config.fish",
}


def add(commands: Commands) -> None:
    parser = commands.add_parser("completion", help="print a script that completes words in a shell")
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    print(script(options.shell, list(described(options.parser))), end="")
    return 0


@dataclass(frozen=True)
class Option:
    """names: ``-o``, ``--output``. takes: whether a value follows. values: the only ones it can be."""

    names: tuple[str, ...]
    takes: bool
    values: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Command:
    """files: whether its arguments are files; values: what else they can be."""

    name: str
    help: str
    options: tuple[Option, ...]
    files: bool
    values: tuple[str, ...]


def described(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """Every command with its options, as the parser has them."""
    (choices,) = (item for item in parser._actions if isinstance(item, argparse._SubParsersAction))
    helps = {item.dest: item.help or "" for item in choices._choices_actions}
    for name, command in choices.choices.items():
        options: list[Option] = []
        values: list[str] = []
        files = False
        for item in command._actions:
            allowed = tuple(map(str, item.choices or ()))
            if item.option_strings:
                takes = item.nargs != 0
                options.append(Option(tuple(item.option_strings), takes, allowed, item.help or ""))
            else:
                values += allowed or (_codes() if item.dest == "code" else ())
                files |= item.dest in ("file", "files", "folder")
        yield Command(name, helps[name], tuple(options), files, tuple(values))


def _codes() -> tuple[str, ...]:
    from attnc.explanations import EXPLANATIONS

    return tuple(sorted(EXPLANATIONS))


def script(shell: str, commands: list[Command]) -> str:
    made = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)
    return f"# Completes the words of attnc. {HINTS[shell]}\n{made}"


def _bash(commands: list[Command]) -> str:
    cases = []
    for command in commands:
        lines = [f"        {command.name})"]
        for option in command.options:
            if option.takes:
                reply = f'compgen -W "{" ".join(option.values)}"' if option.values else "compgen -f"
                lines.append(
                    f'            case "$before" in {"|".join(option.names)}) '
                    f'COMPREPLY=($({reply} -- "$word")); return;; esac'
                )
        words = " ".join(name for option in command.options for name in option.names)
        lines.append(
            f'            [[ $word == -* ]] && COMPREPLY=($(compgen -W "{words}" -- "$word")) && return'
        )
        if command.values:
            lines.append(f'            COMPREPLY=($(compgen -W "{" ".join(command.values)}" -- "$word"))')
        elif command.files:
            lines.append(
                '            COMPREPLY=($(compgen -f -X "!*.attn" -- "$word") $(compgen -d -- "$word"))'
            )
        cases.append("\n".join([*lines, "            ;;"]))
    names = " ".join(command.name for command in commands)
    return (
        "_attnc() {\n"
        '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"\n'
        "    COMPREPLY=()\n"
        "    if ((COMP_CWORD == 1)); then\n"
        f'        COMPREPLY=($(compgen -W "{names} --help --version" -- "$word"))\n'
        "        return\n"
        "    fi\n"
        '    case "${COMP_WORDS[1]}" in\n' + "\n".join(cases) + "\n    esac\n"
        "}\n"
        "complete -o filenames -F _attnc attnc\n"
    )


def _zsh(commands: list[Command]) -> str:
    lines = ["#compdef attnc", "_attnc() {", "    local -a commands", "    commands=("]
    lines += [f"        {_quoted(f'{command.name}:{_plain(command.help)}')}" for command in commands]
    lines += [
        "    )",
        "    if (( CURRENT == 2 )); then",
        "        _describe command commands",
        "        return",
    ]
    lines += [
        "    fi",
        "    local command=${words[2]}",
        "    shift words; (( CURRENT-- ))",
        "    case $command in",
    ]
    for command in commands:
        specs = []
        for option in command.options:
            said = f"[{_plain(option.help)}]"
            follows = ""
            if option.takes:
                follows = f":value:({' '.join(option.values)})" if option.values else ":value:_files"
            specs += [_quoted(f"*{name}{said}{follows}") for name in option.names]
        if command.values:
            specs.append(_quoted(f"*:value:({' '.join(command.values)})"))
        elif command.files:
            specs.append(_quoted('*:pattern file:_files -g "*.attn(-.)"'))
        lines.append(f"        {command.name})")
        lines.append("            _arguments " + " \\\n                ".join(specs))
        lines.append("            ;;")
    lines += [
        "    esac",
        "}",
        'if [[ $funcstack[1] == _attnc ]]; then _attnc "$@"; else compdef _attnc attnc; fi',
    ]
    return "\n".join(lines) + "\n"


def _fish(commands: list[Command]) -> str:
    lines = ["complete -c attnc -f"]
    for command in commands:
        said = _fish_quoted(_plain(command.help))
        lines.append(f"complete -c attnc -n __fish_use_subcommand -a {command.name} -d {said}")
        when = f"complete -c attnc -n '__fish_seen_subcommand_from {command.name}'"
        if command.files:
            lines.append(f"{when} -a '(__fish_complete_suffix .attn)'")
        if command.values:
            lines.append(f"{when} -a {_fish_quoted(' '.join(command.values))}")
        for option in command.options:
            flags = " ".join(
                f"-l {name[2:]}" if name[:2] == "--" else f"-s {name[1:]}" for name in option.names
            )
            follows = ""
            if option.takes:
                follows = f" -r -a {_fish_quoted(' '.join(option.values))}" if option.values else " -r -F"
            lines.append(f"{when} {flags}{follows} -d {_fish_quoted(_plain(option.help))}")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A description without what shells and their completions read something into."""
    return re.sub(r"[\[\]:`\"\\$]", "", text).strip()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
