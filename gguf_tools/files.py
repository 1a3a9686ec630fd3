"""Writing files and folders so that a crash leaves what was there before or what is new, never a mixture."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["keep_permissions", "remove", "sync_folder", "temporary_folder", "temporary_sibling", "writing"]


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
