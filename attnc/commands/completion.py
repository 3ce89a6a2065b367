"""``attnc completion``: what a shell must know to complete the words of the command line.

The scripts are made of the parser itself, so that no command or option is missing from them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
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
    """names: ``-o``, ``--output``. takes: whether a value follows. values: the only ones it can be.

    file: whether the value is a file that is written.
    """

    names: tuple[str, ...]
    takes: bool
    values: tuple[str, ...]
    file: bool
    help: str


@dataclass(frozen=True)
class Command:
    """files, folders: whether its arguments are pattern files, or folders; values: what else they can be."""

    name: str
    help: str
    options: tuple[Option, ...]
    files: bool
    folders: bool
    values: tuple[str, ...]


def described(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """Every command with its options, as the parser has them."""
    (choices,) = (item for item in parser._actions if isinstance(item, argparse._SubParsersAction))
    helps = {item.dest: item.help or "" for item in choices._choices_actions}
    for name, command in choices.choices.items():
        options: list[Option] = []
        values: list[str] = []
        dests = {item.dest for item in command._actions}
        for item in command._actions:
            allowed = tuple(map(str, item.choices or ()))
            if item.option_strings:
                names, takes, file = tuple(item.option_strings), item.nargs != 0, _is_file(item)
                options.append(Option(names, takes, allowed, file, item.help or ""))
            else:
                values += allowed or (_codes() if item.dest == "code" else ())
        files, folders = not dests.isdisjoint(("file", "files")), "folder" in dests
        yield Command(name, helps[name], tuple(options), files, folders, tuple(values))


def _is_file(option: argparse.Action) -> bool:
    return str(option.metavar).startswith("OUT")


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
                reply = "return"
                if option.values or option.file:
                    reply = f"{_replies(_words(option.values) if option.values else '-f')}; return"
                lines.append(f'            case "$before" in {"|".join(option.names)}) {reply};; esac')
        words = _words(name for option in command.options for name in option.names)
        lines.append(f"            [[ $word == -* ]] && {_replies(words)} && return")
        if command.values:
            lines.append(f"            {_replies(_words(command.values))}")
        elif command.files:
            lines.append("            " + _replies('-f -X "!*.attn"', "-d"))
        elif command.folders:
            lines.append(f"            {_replies('-d')}")
        cases.append("\n".join([*lines, "            ;;"]))
    names = _words([*(command.name for command in commands), "--help", "--version"])
    return (
        "_attnc() {\n"
        '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"\n'
        "    COMPREPLY=()\n"
        "    if ((COMP_CWORD == 1)); then\n"
        f"        {_replies(names)}\n"
        "        return\n"
        "    fi\n"
        '    case "${COMP_WORDS[1]}" in\n' + "\n".join(cases) + "\n    esac\n"
        "}\n"
        "complete -o filenames -F _attnc attnc\n"
    )


def _words(words: Iterable[str]) -> str:
    return f'-W "{" ".join(words)}"'


def _replies(*kinds: str) -> str:
    """What bash offers: a line each, for a file's name may hold spaces."""
    made = "; ".join(f'compgen {kind} -- "$word"' for kind in kinds)
    return f"mapfile -t COMPREPLY < <({made})"


def _zsh(commands: list[Command]) -> str:
    lines = ["#compdef attnc", "_attnc() {", "    local -a commands", "    commands=("]
    lines += [f"        {_quoted(f'{command.name}:{_escaped(command.help)}')}" for command in commands]
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
            said = f"[{_escaped(option.help)}]"
            follows = ""
            if option.takes:
                offered = (
                    f"({' '.join(option.values)})" if option.values else "_files" if option.file else " "
                )
                follows = f":value:{offered}"
            specs += [_quoted(f"*{name}{said}{follows}") for name in option.names]
        if command.values:
            specs.append(_quoted(f"*:value:({' '.join(command.values)})"))
        elif command.files:
            specs.append(_quoted('*:pattern file:_files -g "*.attn(-.)"'))
        elif command.folders:
            specs.append(_quoted("*:folder:_files -/"))
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
        said = _fish_quoted(command.help)
        lines.append(f"complete -c attnc -n __fish_use_subcommand -a {command.name} -d {said}")
        when = f"complete -c attnc -n '__fish_seen_subcommand_from {command.name}'"
        if command.files:
            lines.append(f"{when} -a '(__fish_complete_suffix .attn)'")
        if command.folders:
            lines.append(f"{when} -a '(__fish_complete_directories)'")
        if command.values:
            lines.append(f"{when} -a {_fish_quoted(' '.join(command.values))}")
        for option in command.options:
            flags = " ".join(
                f"-l {name[2:]}" if name[:2] == "--" else f"-s {name[1:]}" for name in option.names
            )
            follows = ""
            if option.takes:
                follows = " -r -F" if option.file else " -x"
                if option.values:
                    follows += f" -a {_fish_quoted(' '.join(option.values))}"
            lines.append(f"{when} {flags}{follows} -d {_fish_quoted(option.help)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """A description in which zsh reads no end of it."""
    return re.sub(r"[\[\]:\\]", r"\\\g<0>", text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
