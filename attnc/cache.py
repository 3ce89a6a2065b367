"""The store of compiled modules: one file for each thing that went in, on disk, checked before it is trusted.

This is where the project's only state lives. Nothing here knows the language; an entry is a text under a key.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

from attnc import ownership
from attnc.debug import say
from attnc.files import write_whole

_TRAILER = b"# attnc cache entry: "
_SIZE = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Entry:
    """A compiled module: its text, the name of the function in it, and the file that has the text.

    warnings: what compiling it warned of. kept: whether the file is one of the cache, and no temporary one or
    none at all.
    """

    text: str
    function: str
    path: Path
    warnings: tuple[str, ...] = ()
    kept: bool = True


def key(parts: Mapping[str, object]) -> str:
    """The name under which the outcome of compiling ``parts`` is kept: whatever differs gives another name.

    parts: everything that goes in, as plain JSON values.
    """
    record = json.dumps({"attnc": code_version(), **parts}, sort_keys=True)
    return hashlib.sha256(record.encode()).hexdigest()


@cache
def code_version() -> str:
    """A digest of the compiler's own files: no compiler serves what an older one made."""
    root = os.path.dirname(__file__)
    files = [name for name in os.listdir(root) if name.endswith(".py")]
    for part in ("codegen", "grammar"):  # links in a checkout
        for place, _, names in os.walk(os.path.join(root, part)):
            inside = os.path.relpath(place, root)
            files += [os.path.join(inside, name) for name in names if not name.endswith(".pyc")]
    digest = hashlib.sha256()
    for name in sorted(files):
        with open(os.path.join(root, name), "rb") as file:
            data = file.read()
        digest.update(f"{name} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def folder() -> Path | None:
    """Where entries are kept: ``$ATTNC_CACHE_DIR``, or ``attnc`` in the user's cache folder.

    Entries are executed, so a folder that another user could change (``ownership``) is not used; nor is one
    that cannot be made. Then there is none, with a warning, and every process compiles for itself.
    """
    wanted = os.environ.get("ATTNC_CACHE_DIR", "")
    if wanted:
        return _checked(os.path.abspath(wanted), ownership.user())
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # such a one does not count, says its specification
        home = os.path.expanduser("~") if os.environ.get("HOME") != "" else ""
        base = os.path.join(home, ".cache") if os.path.isabs(home) else ""
    return _checked(os.path.join(base, "attnc") if base else None, ownership.user())


@cache
def _checked(wanted: str | None, user: int) -> Path | None:
    """The folder's real path, checked once for every user that the process acts as."""
    place, fix = f"the cache folder {wanted!r} cannot be used", "set ATTNC_CACHE_DIR to another folder"
    try:
        if wanted is not None:
            return Path(ownership.secure_folder(wanted))
        place, reason = "there is no cache folder", "HOME names no folder"
    except ownership.Untrusted as error:
        reason, fix = str(error), error.fix
    except OSError as error:
        reason = str(error)
    warnings.warn(
        f"{place}: {reason}; every process compiles its patterns again. To keep what was compiled, {fix}",
        stacklevel=2,
    )
    return None


def fetch(name: str) -> Entry | None:
    """The entry of that key; None without one, and with a warning for one that is damaged or not trusted."""
    place = folder()
    path = None if place is None else place / f"{name}.py"
    data = None if path is None else _trusted(path, "the cache entry")
    if path is None or data is None:
        return None
    body, found, trailer = data.rpartition(_TRAILER)
    digest, _, rest = trailer.decode("ascii", "replace").strip().partition(" ")
    function, _, said = rest.partition(" ")
    if not found or digest != _digest(body, rest) or not function.isidentifier():
        warnings.warn(f"the cache entry {str(path)!r} is damaged; compiling again", stacklevel=2)
        return None
    say(f"cached module {path}")
    return Entry(body.decode("utf-8"), function, path, tuple(json.loads(said)))


def store(name: str, text: str, function: str, said: Sequence[str] = ()) -> Entry:
    """Keep a module's text and what compiling it warned of; any process doing the same is equally right.

    What ``fetch`` does not trust is left as it is. What cannot be kept is used from a temporary file, or from
    memory alone.
    """
    body = text.encode("utf-8")
    if not body.endswith(b"\n"):
        body += b"\n"
    text = body.decode("utf-8")
    rest = f"{function} {json.dumps(said)}"
    data = body + _TRAILER + f"{_digest(body, rest)} {rest}\n".encode("ascii")
    said = tuple(said)
    if place := folder():
        path = place / f"{name}.py"
        try:
            ownership.check_file(path)
            write_whole(path, data, 0o600)
            return Entry(text, function, path, said)
        except ownership.Untrusted:
            pass  # `fetch` said so
        except OSError as error:
            warnings.warn(f"the module cannot be kept in the cache ({error})", stacklevel=2)
    if private := _private_folder(os.getpid()):
        with suppress(OSError):
            write_whole(private / f"{name}.py", data, 0o600)
            return Entry(text, function, private / f"{name}.py", said, kept=False)
    # A path all the same, by which Python and Triton know the source.
    return Entry(text, function, Path("<memory>", f"{name}.py"), said, kept=False)


@cache
def _private_folder(process: int) -> Path | None:
    """A folder for this process alone, removed when it ends; None where none can be made."""
    import atexit
    import shutil

    try:
        path = tempfile.mkdtemp(prefix="attnc-")
    except OSError:
        return None

    def remove() -> None:
        if os.getpid() == process:  # and none that was forked from it
            shutil.rmtree(path, ignore_errors=True)

    atexit.register(remove)
    return Path(path)


def code(entry: Entry, compiled: CodeType | None = None) -> CodeType:
    """An entry's text as Python compiles it, kept beside it: two thousand lines take a while.

    Python does as much for modules that it imports, where that is not switched off, as in containers it
    often is. Like the text, the file is trusted because of its owner and mode. Its checksum is no protection
    from anybody: it finds what was cut off, damaged, or made of another text or by another Python, on all of
    which ``marshal`` may crash.

    compiled: what the text was compiled to, by whatever name of its file.
    """
    place = str(entry.path)
    if not entry.kept:
        return _placed(compiled or compile(entry.text, place, "exec", dont_inherit=True), place)
    tag = f"{sys.implementation.cache_tag}-{sys.flags.optimize}"
    path = entry.path.with_suffix(f".{tag}.code")
    source = entry.text.encode("utf-8")
    if compiled is None:
        data = _trusted(path, "the cached code")
        if data is not None and data[:_SIZE] == _checksum(source, data[_SIZE:]):
            found = marshal.loads(data[_SIZE:])
            if isinstance(found, CodeType) and found.co_filename == place:
                return found
        compiled = compile(source, place, "exec", dont_inherit=True)
    compiled = _placed(compiled, place)
    payload = marshal.dumps(compiled)
    with suppress(OSError):
        ownership.check_file(path)
        write_whole(path, _checksum(source, payload) + payload, 0o600)
    return compiled


def _trusted(path: Path, what: str) -> bytes | None:
    """Content of a file of the cache; None without one, and with a warning for one that cannot be used."""
    try:
        return ownership.read_trusted(path)
    except FileNotFoundError:
        return None
    except ownership.Untrusted as error:
        problem = f"{what} is not executed: {error}; compiling again. To use the cache, {error.fix}"
    except OSError as error:
        problem = f"{what} {str(path)!r} cannot be read ({error.strerror or error}); compiling again"
    warnings.warn(problem, stacklevel=3)
    return None


def _checksum(source: bytes, payload: bytes) -> bytes:
    return hashlib.sha256(MAGIC_NUMBER + hashlib.sha256(source).digest() + payload).digest()


def _placed(compiled: CodeType, path: str) -> CodeType:
    """The code as that of the file ``path``."""
    parts = (_placed(part, path) if isinstance(part, CodeType) else part for part in compiled.co_consts)
    return compiled.replace(co_filename=path, co_consts=tuple(parts))


def _digest(body: bytes, rest: str) -> str:
    return hashlib.sha256(body + rest.encode("utf-8", "replace")).hexdigest()
