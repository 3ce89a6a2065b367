"""Check that no other user can have written a file that is to be executed: owners and modes, as OpenSSH does.

A path is checked from the root down. Nobody else can exchange what is below a folder that passed, so what was
checked still holds when it is used. Access control lists count: their mask is shown in the bits of the group.
Further names of a file (hard links) give nobody a right to change it, and are no reason against it.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

_LINKS = 40  # as many as the kernel follows


class Untrusted(OSError):
    """A path that another user can change, or no plain file: its text says which, and why.

    fix: what to do.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.fix = fix


def user() -> int:
    """The user that this process acts as."""
    return os.geteuid()


def secure_folder(path: str) -> str:
    """Check a folder and all that is above it, make what is missing (mode 0700), and return its real path.

    Every folder and link on the way must belong to this user or to root, and nobody else may write to it.
    Above the last one a sticky folder like /tmp will do, where nobody can rename what belongs to others.
    Nothing is made below a folder that does not pass.

    Raises ``Untrusted``, or another ``OSError`` where a folder cannot be made or looked at.
    """
    walked, rest, links = "/", _parts(path), 0
    _check("/", os.lstat("/"), sticky=True)
    while rest:
        name = rest.pop()
        here = os.path.dirname(walked) if name == ".." else os.path.join(walked, name)
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            with suppress(FileExistsError):  # another process was faster
                os.mkdir(here, 0o700)
            found = os.lstat(here)
        _check(here, found, sticky=bool(rest))
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _LINKS:
                raise OSError(f"too many symbolic links: {here!r}")
            target = os.readlink(here)
            walked = "/" if os.path.isabs(target) else walked
            rest += _parts(target)
            continue
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(f"{here!r} is a file, not a folder")
        walked = here
    return walked


def _parts(path: str) -> list[str]:
    """Names on a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def read_trusted(path: str | os.PathLike[str]) -> bytes:
    """Content of a regular file that only this user, or root, can have written.

    The file that is checked is the file that is read: owner and mode are those of the opened descriptor. A
    link is not followed, and a pipe is not waited for.

    Raises ``Untrusted``, ``FileNotFoundError``, or another ``OSError`` where it cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        check_file(path)  # says more than the number of an error
        raise
    try:
        _check_file(os.fspath(path), os.fstat(handle))
        with open(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise ``Untrusted`` if something is there that ``read_trusted`` would refuse."""
    with suppress(FileNotFoundError):
        _check_file(os.fspath(path), os.lstat(path))


def _check_file(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        raise Untrusted(f"{path!r} is {kind}", "remove it")
    try:
        _check(path, found)
    except Untrusted as error:
        raise Untrusted(str(error), "remove it") from None


def _check(path: str, found: os.stat_result, sticky: bool = False) -> None:
    """Raise ``Untrusted`` unless only this user and root can change what is there.

    sticky: whether others may write to a folder in which they cannot rename what is not theirs.
    """
    elsewhere = "set ATTNC_CACHE_DIR to a folder of your own"
    if found.st_uid not in (user(), 0):  # root can change everything anyway
        raise Untrusted(
            f"{path!r} belongs to another user (uid {found.st_uid}, and this process runs as {user()})",
            elsewhere,
        )
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode) or not mode & 0o022 or (sticky and mode & stat.S_ISVTX):
        return
    who = "anyone" if mode & stat.S_IWOTH else "its group"
    fix = f"run `chmod go-w {path!r}`, or {elsewhere}" if found.st_uid == user() else elsewhere
    raise Untrusted(f"{path!r} can be written by {who} (mode {mode:04o})", fix)
