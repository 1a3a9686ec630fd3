"""Writing files so that a crash leaves the old content or the new, never a mixture."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing", "sync_folder", "write_atomic"]


def write_atomic(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace a file's content: temporary sibling, fsync, rename, fsync of the folder.

    A symbolic link is followed, so that the link stays and its target is replaced.

    Args:
        path: file to write; its folder must exist.
        data: the whole new content.
        mode: permission bits of the file, reduced by the process's umask.

    Raises:
        OSError: as the system reports it; the temporary sibling is removed and the old file untouched.
    """
    target = _target(path)
    if target.exists() and not target.is_file():  # a device or a pipe has nothing to rename over
        with target.open("wb") as stream:
            stream.write(data)
        return
    with replacing(target, mode=mode) as stream:
        stream.write(data)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A temporary sibling to write to (its path is the stream's ``name``), which replaces ``path`` at the end.

    The sibling is synced before the rename and the folder after it. On any exception it is removed and the old file
    stays as it was.
    """
    target = _target(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:80]}.", suffix=".tmp", dir=target.parent)
    sibling = Path(name)
    try:
        os.close(handle)
        with sibling.open("wb") as stream:  # by name, so that the stream knows its path
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if sys.platform != "win32":
            sibling.chmod(mode & ~_umask())
        sibling.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            sibling.unlink()
        raise
    sync_folder(target.parent)


def _target(path: Path) -> Path:
    """What a symbolic link leads to; the path itself where it is none."""
    try:
        return path.resolve() if path.is_symlink() else path
    except RuntimeError as error:  # how Python tells of a circle of links, before 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable, where the system can do that."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):  # some file systems refuse fsync on folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
