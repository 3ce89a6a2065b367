"""Try every command, and what Python code asks for, as a new user would, in an empty folder.

    cd EMPTY && PYTHON tools/try_commands.py

PYTHON is an interpreter that has attnc from a wheel; its folder also has the command ``attnc``. What optional
packages bring is tried where they are installed, and in any case that without them their extra is named.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ATTNC = Path(sys.executable).with_name("attnc")
MANY = "1000000"


def attnc(*words: str, says: str = "", status: int = 0, without: str = "", given: str | None = None) -> str:
    """Runs the command; stops everything where its status or its words are others.

    without: a package that cannot be imported while it runs. Returns what it prints.
    """
    hidden = tempfile.mkdtemp()
    try:
        environment = dict(os.environ)
        if without:
            Path(hidden, f"{without}.py").write_text(f"raise ImportError('no {without} here')\n")
            environment["PYTHONPATH"] = hidden
        done = subprocess.run(
            [str(ATTNC), *words],
            env=environment,
            input=given or "",
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        shutil.rmtree(hidden)
    said = done.stdout + done.stderr
    wrong = done.returncode != status or says not in said or "Traceback" in said
    verdict = "WRONG" if wrong else "refused" if status == 2 else "good"
    print(f"{verdict}: attnc {' '.join(words)}" + f" (without {without})" * bool(without), flush=True)
    if wrong:
        sys.exit(f"error: wanted status {status} and {says!r}, got status {done.returncode} and\n{said}")
    return done.stdout


def file(name: str, good: Callable[[bytes], object] | None = None) -> bytes:
    """What a command has written; stops everything where it has not, or where ``good`` finds it wrong."""
    data = Path(name).read_bytes()
    if not data or (good is not None and good(data) in (False, None)):
        sys.exit(f"error: {name} is not what it should be: {data[:80]!r}")
    return data


def refused(*words: str, says: str, status: int = 2, without: str = "") -> None:
    """The command refuses, in these words, and no file is made or changed."""
    before = {path: path.stat().st_mtime_ns for path in Path.cwd().rglob("*")}
    attnc(*words, says=says, status=status, without=without)
    after = {path: path.stat().st_mtime_ns for path in Path.cwd().rglob("*")}
    if after != before:
        sys.exit(f"error: a refused command left {sorted(map(str, after.keys() ^ before.keys()))}")


def there(package: str) -> bool:
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"skipped, {package} is not installed: what needs it")
    return found


# --- commands -------------------------------------------------------------------------------------------


def commands() -> None:
    attnc("new", "mine", says="wrote mine.attn")
    attnc("check", "mine.attn", says="require   causal: proven")
    attnc("check", "mine.attn", "-p", "window=8", says="mine(window = 8, sinks = 4)")
    json.loads(attnc("check", "mine.attn", "--json"))
    attnc("fmt", "--check", "mine.attn")
    untidy = Path("untidy.attn")
    untidy.write_text("pattern untidy(){ attend   causal  # kept\n}")
    attnc("fmt", "--check", "untidy.attn", says="untidy.attn", status=1)
    attnc("fmt", "untidy.attn")
    attnc("fmt", "--check", "untidy.attn")
    file("untidy.attn", lambda data: b"# kept" in data)

    attnc("graph", "mine.attn", "--n", "256", "-p", "window=32", says="capitals are full tiles")
    attnc("graph", "mine.attn", "--n", MANY, says=f"n = {MANY}")
    for form, good in PICTURES.items():
        if form != "png" or there("matplotlib"):
            attnc("graph", "mine.attn", "--n", MANY, "-o", f"mine.{form}")
            file(f"mine.{form}", good)
    attnc("report", "mine.attn", "-o", "report.html")
    file("report.html", lambda page: b"What is proven" in page and b"src=" not in page)
    attnc("gallery", ".", "-o", "gallery.html")
    file("gallery.html", lambda page: b"mine" in page and b"untidy" in page)

    attnc("compile", "mine.attn", "-o", "mine.py", "-p", "window=8")
    for stage in ("syntax", "pattern", "terms", "schedule", "module"):
        attnc("compile", "mine.attn", "--emit", stage)
    attnc("explain", says="not-causal")
    attnc("explain", "not-causal", says="reads a key that comes after it")
    attnc(
        "bench",
        "mine.attn",
        "--n",
        "64",
        "--device",
        "cpu",
        "--against",
        "sdpa",
        "--repeats",
        "1",
        says="attnc",
    )
    for shell in ("bash", "zsh", "fish"):
        script = attnc("completion", shell, says="attnc")
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=script, text=True, check=True)
    watched()
    if there("pygls"):
        spoken()


PICTURES: dict[str, Callable[[bytes], object]] = {
    "svg": ElementTree.fromstring,
    "png": lambda data: data.startswith(b"\x89PNG"),
    "html": lambda data: b"<svg" in data,
    "dot": lambda data: b"digraph" in data,
    "json": json.loads,
}


def watched() -> None:
    """A change is seen, and Ctrl-C ends it with the status of the last check."""
    said = Path("said.txt")
    with said.open("w") as output:
        running = subprocess.Popen(
            [str(ATTNC), "check", "untidy.attn", "--watch"],
            stdout=output,
            stderr=output,
            # What is started in the background of a shell ignores Ctrl-C, and hands that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        _until(lambda: said.read_text().count("waiting for changes") == 1, "the first check")
        Path("untidy.attn").write_text("pattern untidy() {\n    attend windw(1)\n}\n")
        _until(lambda: said.read_text().count("waiting for changes") == 2, "the check of a change")
    finally:
        running.send_signal(signal.SIGINT)
        status, text = running.wait(30), said.read_text()
    if status != 1 or "did you mean `window`?" not in text or "Traceback" in text:
        sys.exit(f"error: `check --watch` and Ctrl-C gave status {status} and\n{text}")
    Path("untidy.attn").unlink()
    print("good: attnc check untidy.attn --watch")


def _until(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not done():
        if time.monotonic() > end:
            sys.exit(f"error: {what} did not come")
        time.sleep(0.1)


def spoken() -> None:
    """The language server shakes hands, and finds the same mistakes."""
    spec = importlib.util.spec_from_file_location("talking", ROOT / "tests" / "talking.py")
    assert spec is not None and spec.loader is not None
    talking = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(talking)
    client = talking.Client()
    able = client.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})["capabilities"]
    if not all(
        able.get(f"{what}Provider") for what in ("hover", "completion", "definition", "documentFormatting")
    ):
        sys.exit(f"error: the language server offers {sorted(able)}")
    client.tell("initialized", {})
    text = "pattern p() { attend windw(1) }"
    document = {"uri": "file:///p.attn", "languageId": "attn", "version": 1, "text": text}
    client.tell("textDocument/didOpen", {"textDocument": document})
    client.diagnostics("file:///p.attn", 1, lambda found: [one["code"] for one in found] == ["unknown-name"])
    if client.leave() != 0:
        sys.exit("error: the language server does not leave well")
    print("good: attnc lsp")


# --- what is refused ------------------------------------------------------------------------------------


def refusals() -> None:
    refused("graph", "mine.attn", "-o", "mine.gif", says="must end in .svg or .png or .html or .dot or .json")
    refused("report", "mine.attn", "-o", "report.pdf", says="must end in .html")
    for command in (
        ["graph", "mine.attn"],
        ["report", "mine.attn"],
        ["gallery", "."],
        ["compile", "mine.attn"],
    ):
        form = "py" if command[0] == "compile" else "html"
        refused(*command, "-o", f"nowhere/out.{form}", says="there is no folder")
    refused("new", "mine", says="will not overwrite 'mine.attn'")
    for n, says in (("0", "'0' is no number from 1 on"), ("1000000000", "more than can be drawn")):
        refused("graph", "mine.attn", "--n", n, "-o", "other.svg", says=says)
        refused("report", "mine.attn", "--n", n, "-o", "other.html", says=says)
    refused("bench", "mine.attn", "--n", "1000000000", says="GiB of memory: take fewer tokens")
    refused("check", "other.attn", says="there is no such file")
    refused("check", "mine.attn", "-p", "windw=8", says="did you mean `window`?", status=1)
    refused("graph", "mine.attn", "-o", "other.png", says="pip install '.[pictures]'", without="matplotlib")
    refused("lsp", says="pip install '.[lsp]'", without="pygls")
    plotted = ("bench", "mine.attn", "--n", "64", "--device", "cpu", "--plot", "other.png")
    refused(*plotted, says="pip install '.[bench]'", without="matplotlib")


# --- Python ---------------------------------------------------------------------------------------------


def python() -> None:
    import torch

    import attnc as package

    q, k, v = torch.randn(3, 1, 4, 100, 16)
    causal = torch.ones(100, 100, dtype=torch.bool).tril()
    near = causal & ~causal.tril(-8)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=near)

    def equal(what: str, found: torch.Tensor) -> None:
        if not torch.allclose(found, wanted, atol=1e-5):
            sys.exit(f"error: {what} and dense attention disagree")
        print(f"good: {what}")

    pattern = "pattern near() { attend window(7) require causal }"
    loaded = package.load(pattern)
    equal("attnc.load", loaded(q, k, v))
    shown = getattr(loaded, "_repr_html_")()  # noqa: B009, as notebooks ask for it
    if "<svg" not in shown or "proven" not in shown:
        sys.exit("error: a notebook would not show a picture and facts")
    equal("attnc.from_mask", package.from_mask(near)(q, k, v))
    mask_mod = package.from_mask_mod(lambda b, h, q_idx, kv_idx: (q_idx >= kv_idx) & (q_idx - kv_idx < 8))
    equal("attnc.from_mask_mod", mask_mod(q, k, v))

    attention = torch.nn.MultiheadAttention(64, 4, batch_first=True)
    x = torch.randn(2, 100, 64)
    dense = attention(x, x, x, attn_mask=~near, need_weights=False)[0]
    sparse = package.nn.replace(attention, pattern=pattern)
    if not torch.allclose(sparse(x, x, x, need_weights=False)[0], dense, atol=1e-5):
        sys.exit("error: PatternAttention and nn.MultiheadAttention disagree")
    print("good: attnc.nn.replace")

    lexers = importlib.metadata.entry_points(group="pygments.lexers", name="attn")
    if there("pygments"):
        [lexer] = lexers
        lexer.load()
        print("good: the lexer for Pygments")
    models(pattern)


def models(pattern: str) -> None:
    """A Llama with random weights, over a pattern that is its own mask."""
    blocked = "import sys; sys.modules['transformers'] = None; import attnc.integrations.transformers"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    if done.returncode == 0 or "pip install '.[transformers]'" not in done.stderr:
        sys.exit(f"error: without transformers its extra is not named:\n{done.stderr}")
    print("good: import attnc.integrations.transformers (without transformers)")
    if not there("transformers"):
        return
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from attnc.integrations.transformers import register

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    tokens = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, **tokens)).eval()
    ids = torch.randint(3, 50, (2, 40))
    padding = torch.ones_like(ids)
    padding[1, :9] = 0
    own = model(ids, attention_mask=padding).logits
    model.set_attn_implementation(register("pattern past() { attend causal require causal }", name="past"))
    if not torch.allclose(
        model(ids, attention_mask=padding).logits[padding == 1], own[padding == 1], atol=1e-4
    ):
        sys.exit("error: a causal pattern and the model's own attention disagree")
    model.set_attn_implementation(register(pattern, name="near"))
    model.generate(ids, attention_mask=padding, max_new_tokens=3)
    print("good: attnc.integrations.transformers")


def main() -> None:
    if any(Path.cwd().iterdir()):
        sys.exit(f"error: {Path.cwd()} is not empty")
    commands()
    refusals()
    python()


if __name__ == "__main__":
    main()
