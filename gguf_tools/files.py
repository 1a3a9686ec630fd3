"""Writing files and folders so that a crash leaves what was there before or what is new, never a mixture."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from gguf_tools.errors import DiskFull
from gguf_tools.printable import byte_count

__all__ = [
    "check_space",
    "ended_by_signals",
    "keep_permissions",
    "remove",
    "room_for",
    "sync_folder",
    "temporary_folder",
    "temporary_sibling",
    "writing",
]

_FULL = (errno.ENOSPC, errno.EFBIG, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else []))


@contextlib.contextmanager
def room_for(target: Path) -> Iterator[None]:
    """Say of a disk that became full what was to be written.

    Raises:
        DiskFull: the disk, the quota or the file system's largest file was full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(target, f"can't be written: {error.strerror}") from error
        raise


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a terminal that closes and `kill` end a command as Ctrl-C does, so that it takes its temporary files away.

    For the main thread of a program; elsewhere it does nothing.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {}
    with contextlib.suppress(ValueError):  # another thread than the main one
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_space(target: Path, nbytes: int) -> None:
    """Refuse to begin what can't be finished.

    Raises:
        DiskFull: the disk has less than `nbytes` left.
    """
    with contextlib.suppress(OSError):  # some file systems don't tell
        free = shutil.disk_usage(target.parent).free
        if free < nbytes:
            raise DiskFull(target, f"needs {byte_count(nbytes)}, {byte_count(free)} are free")


def temporary_sibling(target: Path) -> Path:
    """An empty file beside `target`, under a name that nothing else has."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:80]}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    return Path(name)


def temporary_folder(target: Path) -> Path:
    """An empty folder beside `target`, under a name that nothing else has."""
    return Path(tempfile.mkdtemp(prefix=f".{target.name[:80]}.", suffix=".tmp", dir=target.parent))


@contextlib.contextmanager
def writing(target: Path) -> Iterator[BinaryIO]:
    """A stream whose content replaces `target` at the end: temporary sibling, fsync, rename, fsync of the folder.

    On any exception the sibling is removed and `target` stays as it was.
    """
    sibling = temporary_sibling(target)
    try:
        with sibling.open("w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        keep_permissions(sibling)
        sibling.replace(target)
        sync_folder(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            sibling.unlink()
        raise


def keep_permissions(path: Path) -> None:
    """Give a temporary file or folder the permissions that a new one has; temporary ones are the owner's alone."""
    if sys.platform == "win32":
        return
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def sync_folder(folder: Path) -> None:
    """Have the system write a folder's entries to the disk, where it can."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):  # some file systems refuse fsync on folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path | None) -> None:
    """Remove a temporary file or folder if it is still there; what can't be removed is left."""
    if path is None:
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
