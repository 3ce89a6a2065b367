"""The store of compiled modules: one file for each thing that went in, on disk, checked before it is trusted.

This is where the project's only state lives. Nothing here knows the language; an entry is a text under a key.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

from attnc.debug import say
from attnc.files import write_whole

_TRAILER = b"# attnc cache entry: "
_SIZE = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Entry:
    """A compiled module: its text, the name of the function in it, and the file it can be imported from."""

    text: str
    function: str
    path: Path


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


def folder() -> Path:
    """Where entries are kept: ``$ATTNC_CACHE_DIR``, or ``attnc`` in the user's cache folder.

    A folder that cannot be written to, or that others can write to, gives way to a private temporary one.
    """
    wanted = os.environ.get("ATTNC_CACHE_DIR", "")
    if not wanted:
        base = os.environ.get("XDG_CACHE_HOME", "")
        wanted = os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "attnc")
    return _usable(os.path.abspath(wanted))


@cache
def _usable(wanted: str) -> Path:
    path = Path(wanted)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        problem = _problem(path)
    except OSError as error:
        problem = error.strerror or str(error)
    if problem is None:
        return path
    private = _private_folder()
    warnings.warn(
        f"the cache folder {wanted!r} cannot be used ({problem}); compiled modules go to "
        f"{str(private)!r}, and the next process compiles them again; set ATTNC_CACHE_DIR to another folder",
        stacklevel=2,
    )
    return private


def _problem(path: Path) -> str | None:
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return "permission denied"
    if os.name == "posix" and path.stat().st_mode & stat.S_IWOTH:
        # Entries are imported, so whoever can write here can run code as this user.
        return "anyone may write to it"
    return None


@cache
def _private_folder() -> Path:
    import atexit
    import shutil

    path = Path(tempfile.mkdtemp(prefix="attnc-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def fetch(name: str) -> Entry | None:
    """The entry of that key; None when there is none, or when it is damaged, which is said and mended."""
    path = folder() / f"{name}.py"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(
            f"the cache entry {str(path)!r} cannot be read ({error}); compiling again", stacklevel=2
        )
        return None
    body, found, trailer = data.rpartition(_TRAILER)
    digest, _, function = trailer.decode("ascii", "replace").strip().partition(" ")
    if not found or digest != _digest(body, function) or not function.isidentifier():
        warnings.warn(f"the cache entry {str(path)!r} is damaged; compiling again", stacklevel=2)
        return None
    say(f"cached module {path}")
    return Entry(body.decode("utf-8"), function, path)


def store(name: str, text: str, function: str) -> Entry:
    """Keeps a module's text; any process doing the same at the same time is equally right."""
    body = text.encode("utf-8")
    if not body.endswith(b"\n"):
        body += b"\n"
    data = body + _TRAILER + f"{_digest(body, function)} {function}\n".encode("ascii")
    path = folder() / f"{name}.py"
    try:
        write_whole(path, data, 0o600)
    except OSError as error:
        path = _private_folder() / f"{name}.py"
        warnings.warn(
            f"the module cannot be kept in the cache ({error}); it is used from {str(path)!r}", stacklevel=2
        )
        write_whole(path, data, 0o600)
    return Entry(body.decode("utf-8"), function, path)


def code(entry: Entry, compiled: CodeType | None = None) -> CodeType:
    """An entry's text as Python compiles it, kept beside it: two thousand lines take a while.

    Python does as much for modules that it imports, where that is not switched off, as in containers it
    often is.

    compiled: what the text was compiled to, by whatever name of its file.
    """
    tag = f"{sys.implementation.cache_tag}-{sys.flags.optimize}"
    path = entry.path.with_suffix(f".{tag}.code")
    source = entry.text.encode("utf-8")
    if compiled is None:
        with suppress(OSError):
            data = path.read_bytes()
            # What was not written here, by this Python and of this text, is not looked at.
            if data[:_SIZE] == _seal(source, data[_SIZE:]):
                found = marshal.loads(data[_SIZE:])
                if isinstance(found, CodeType) and found.co_filename == str(entry.path):
                    return found
        compiled = compile(source, str(entry.path), "exec", dont_inherit=True)
    compiled = _placed(compiled, str(entry.path))
    payload = marshal.dumps(compiled)
    with suppress(OSError):
        write_whole(path, _seal(source, payload) + payload, 0o600)
    return compiled


def _seal(source: bytes, payload: bytes) -> bytes:
    return hashlib.sha256(MAGIC_NUMBER + hashlib.sha256(source).digest() + payload).digest()


def _placed(compiled: CodeType, path: str) -> CodeType:
    """The code as that of the file ``path``."""
    parts = (_placed(part, path) if isinstance(part, CodeType) else part for part in compiled.co_consts)
    return compiled.replace(co_filename=path, co_consts=tuple(parts))


def _digest(body: bytes, function: str) -> str:
    return hashlib.sha256(body + function.encode("utf-8", "replace")).hexdigest()
