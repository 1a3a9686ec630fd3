"""Sessions on disk: one JSON Lines file per session, written durably after every turn.

The first line is the header, ``{"format": "ltm-edge-session", "version": 1, ...}``; each further line is one
:class:`~ltm_edge.turn.Turn`. A session file has one writer at a time, guarded by a lock that the system
releases when its process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ltm_edge.errors import SessionBusy, SessionError
from ltm_edge.files import write_atomic
from ltm_edge.paths import data_dir
from ltm_edge.turn import Turn, now

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["SessionFile", "SessionStore", "check_name"]

FORMAT = "ltm-edge-session"
VERSION = 1
MAX_BYTES = 256 * 1024 * 1024

_NAME = re.compile(r"[^\W_][\w .+@-]{0,63}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def check_name(name: str) -> str:
    """Return a session's name in the form in which it is used as a file name.

    Raises:
        SessionError: the name is empty, too long, or could leave the sessions' folder.
    """
    clean = unicodedata.normalize("NFC", name.strip())
    if (
        not _NAME.fullmatch(clean)
        or clean.endswith(".")
        or clean.split(".")[0].strip().lower() in _RESERVED
        or len(clean.encode("utf-8")) > 160
    ):
        raise SessionError(
            f"session name {name!r}: use 1 to 64 letters, digits, spaces or . _ + @ -, starting with a letter or digit"
        )
    return clean


class SessionStore:
    """The folder of saved sessions.

    Args:
        folder: where the files lie; ``sessions`` in the user's data folder by default.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder) if folder is not None else data_dir() / "sessions"

    def open(self, name: str) -> SessionFile:
        """Open a session for writing, new or existing. The file appears with the first turn.

        Raises:
            SessionBusy: another chat has it open.
            SessionError: bad name, the folder can't be written, or the file can't be used.
        """
        name = check_name(name)
        lock = self._lock(name)
        try:
            return SessionFile(self._path(name), lock)
        except BaseException:
            lock.release()
            raise

    def create(self) -> SessionFile:
        """Open a new session, named by the present local time.

        Raises:
            SessionError: the folder can't be written.
        """
        stem = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        names = [stem, *(f"{stem}_{n}" for n in range(2, 100))]
        for name in names:
            if self.exists(name):
                continue
            try:
                return self.open(name)
            except SessionBusy:
                continue
        raise SessionError(f"{self.folder}: no free name for a new session; give one with --session NAME")

    def read(self, name: str) -> list[Turn]:
        """The turns of a session, read without locking or repairing anything.

        Raises:
            SessionError: no such session, or it can't be read.
        """
        name = check_name(name)
        path = self._path(name)
        if not path.exists():
            raise SessionError(f"no session {name!r} in {self.folder}")
        return _read(path).turns

    def exists(self, name: str) -> bool:
        """Whether a session of this name has been saved."""
        return self._path(check_name(name)).exists()

    def names(self) -> list[str]:
        """Names of all saved sessions, the one written last first."""
        found: list[tuple[float, str]] = []
        with contextlib.suppress(OSError):
            for path in self.folder.glob("*.jsonl"):
                with contextlib.suppress(OSError):
                    found.append((path.stat().st_mtime, path.name[: -len(".jsonl")]))
        return [name for _, name in sorted(found, reverse=True)]

    def latest(self) -> str | None:
        """Name of the session written last; None where nothing has been saved."""
        names = self.names()
        return names[0] if names else None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def _lock(self, name: str) -> BaseFileLock:
        from filelock import FileLock, Timeout

        folder = self.folder / "locks"
        # One lock for every spelling that a case-insensitive file system takes for the same file.
        path = folder / f"{name.casefold()}.lock"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied", str(folder))
            lock = FileLock(path, timeout=0, thread_local=False)
            lock.acquire()
        except Timeout:
            raise SessionBusy(
                f"session {name!r} is in use by another chat; leave it there first, "
                "or choose another one with --session NAME"
            ) from None
        except (OSError, NotImplementedError) as error:
            raise SessionError(f"sessions can't be saved in {self.folder}: {_reason(error)}") from None
        return lock


@dataclass(slots=True)
class _Content:
    header: dict[str, Any]
    turns: list[Turn] = field(default_factory=list)
    damaged: list[bytes] = field(default_factory=list)
    complete: bool = True  # the last line ends with a line feed


class SessionFile:
    """One session's file, open for writing and locked until :meth:`close`.

    Attributes:
        name: the session's name.
        path: the file; it exists once a turn has been saved.
        notices: what was repaired on opening, in sentences for the user.
    """

    def __init__(self, path: Path, lock: BaseFileLock) -> None:
        self.path = path
        self.name = path.name[: -len(".jsonl")]
        self.notices: list[str] = []
        self._lock = lock
        self._stale = False  # the file lacks something that is held here: write it whole next time
        self._header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "name": self.name, "created": now()}
        self._turns: list[Turn] = []
        if path.exists():
            self._take(_read(path))

    @property
    def system(self) -> str | None:
        """The user's own system prompt in this session."""
        value = self._header.get("system")
        return value if isinstance(value, str) else None

    def set_system(self, text: str | None) -> None:
        """Keep the user's own system prompt with the session; None removes it.

        Raises:
            SessionError: the file can't be written.
        """
        if text == self.system:
            return
        self._header["system"] = text
        if self._turns:
            self._write()

    def load(self) -> list[Turn]:
        """The turns saved so far, oldest first."""
        return list(self._turns)

    def append(self, turn: Turn) -> None:
        """Add a turn; it is on disk when this returns.

        A turn that can't be written is held and written with the next one that can.

        Raises:
            SessionError: the folder is full, read-only or gone.
        """
        self._turns.append(turn)
        if self._stale or not self.path.exists():
            self._write()
            return
        line = turn.to_json().encode("utf-8") + b"\n"
        try:
            self._append(line)
        except OSError as error:
            self._stale = True
            raise self._unsaved(error) from None

    def rewrite(self, turns: Sequence[Turn]) -> None:
        """Replace all turns at once; after a crash the file holds the old ones or the new ones.

        Raises:
            SessionError: the folder is full, read-only or gone; the file still holds the old turns.
        """
        self._turns = list(turns)
        if self._turns or self.path.exists():
            self._write()

    def close(self) -> None:
        """Release the session for others. May be called more than once."""
        self._lock.release()

    def __enter__(self) -> SessionFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _take(self, content: _Content) -> None:
        self._header.update(content.header)
        self._turns = content.turns
        self._stale = not content.complete
        if not content.damaged:
            return
        aside = self.path.with_name(f"{self.name}.damaged-{datetime.now():%Y%m%d-%H%M%S}")
        try:
            write_atomic(aside, b"\n".join(content.damaged) + b"\n", mode=0o600)
        except OSError as error:
            raise SessionError(
                f"session {self.name!r} has a damaged line that can't be kept aside in {aside.parent}: {_reason(error)}"
            ) from None
        self._write()
        count = len(content.damaged)
        what = "a damaged line was" if count == 1 else f"{count} damaged lines were"
        self.notices.append(f"session {self.name!r}: {what} kept aside in {aside}; {len(self._turns)} turns are whole")

    def _append(self, line: bytes) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        try:
            size = os.fstat(handle).st_size
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            except OSError:
                with contextlib.suppress(OSError):  # leave no torn line behind
                    os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)

    def _write(self) -> None:
        lines = [json.dumps(self._header, ensure_ascii=True), *(turn.to_json() for turn in self._turns)]
        self._stale = True
        try:
            write_atomic(self.path, ("\n".join(lines) + "\n").encode("utf-8"), mode=0o600)
        except OSError as error:
            raise self._unsaved(error) from None
        self._stale = False

    def _unsaved(self, error: OSError) -> SessionError:
        return SessionError(f"session {self.name!r} can't be saved in {self.path.parent}: {_reason(error)}")


def _read(path: Path) -> _Content:
    """Read a session file; damaged lines are set apart, nothing on disk changes."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SessionError(f"{path}: {size} bytes; a session file holds at most {MAX_BYTES}; start a new session")
        data = path.read_bytes()
    except OSError as error:
        raise SessionError(f"{path}: can't be read: {_reason(error)}") from None
    first, _, rest = data.partition(b"\n")
    content = _Content(_header(path, first))
    lines = rest.split(b"\n")
    content.complete = lines[-1] == b""
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        try:
            content.turns.append(Turn.from_json(line, f"{path}:{number}"))
        except SessionError:
            content.damaged.append(line)
    return content


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise SessionError(f"{path}: not a session of ltm-edge; move it away, or choose another name")
    version = header.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SessionError(f"{path}: session format {version!r}: expected a whole number from 1 to {VERSION}")
    if version > VERSION:
        raise SessionError(
            f"{path}: written by a newer ltm-edge (session format {version}, this one reads up to {VERSION}); "
            "update ltm-edge, or start another session"
        )
    return header


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
