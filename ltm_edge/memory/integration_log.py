"""`integration_log.json`: what was accepted, strengthened or weakened, by what, from which to which value, when.

Append-only JSON Lines inside an envelope, so that at rest the whole file is one JSON object: the first line opens it,
each further line is one entry, the last line closes it. The store's events are the record; a log that was cut by a
crash is repaired from them. An entry that counts an archetype has its name, a word of the scene: it goes from the
store when the scene is forgotten, and from the file when that is written anew.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ltm_edge.errors import MemoryStoreError
from ltm_edge.files import write_atomic
from ltm_edge.memory.counting import Counters
from ltm_edge.memory.log_entries import LogEntry
from ltm_edge.memory.records import to_iso
from ltm_edge.memory.store import SceneStore

__all__ = ["LOG_NAME", "IntegrationLog", "logged"]

LOG_NAME = "integration_log.json"

_HEAD = b'{"format":"ltm-integration-log","version":1,"entries":[\n'
_TAIL = b"]}\n"
# Kinds of events that are part of the log, and the word they have in it.
_KINDS = ("accepted", "strengthened", "weakened", "superseded", "consolidated", "forgotten")
_MARKS = ",".join("?" * len(_KINDS))
_SELECT = f"SELECT id, at, kind, scene, detail FROM events WHERE id > ? AND kind IN ({_MARKS}) ORDER BY id"

_log = logging.getLogger(__name__)


class IntegrationLog:
    """The log of one memory folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG_NAME

    def follow(self, store: SceneStore) -> int:
        """Append what has happened since the last entry; returns the number of new entries.

        The store is locked meanwhile, so that two processes don't append the same. A file that can't be written costs
        nothing but itself: the events are in the store.
        """
        last, end = self._last()
        if not store.rows(f"{_SELECT} LIMIT 1", (last, *_KINDS)):
            return 0
        with store.transaction():
            last, end = self._last()
            rows = store.rows(_SELECT, (last, *_KINDS))
            lines = [_line(*row) for row in rows]
            try:
                if end is None:
                    write_atomic(self.path, _HEAD + b",\n".join(lines) + b"\n" + _TAIL, mode=0o600)
                elif lines:
                    with self.path.open("r+b") as file:
                        file.seek(end)
                        file.write((b"," if last else b"") + b",".join(line + b"\n" for line in lines) + _TAIL)
                        file.truncate()
            except OSError as error:
                _log.warning("%s: can't be written: %s", self.path, error.strerror or error)
                return 0
            return len(lines)

    def rewrite(self, store: SceneStore) -> None:
        """Write the file anew, without what went with forgotten scenes."""
        if self.path.exists():
            with store.transaction():
                lines = [_line(*row) for row in store.rows(_SELECT, (0, *_KINDS))]
                body = b",\n".join(lines) + b"\n" if lines else b""
                try:
                    write_atomic(self.path, _HEAD + body + _TAIL, mode=0o600)
                except OSError as error:
                    raise MemoryStoreError(f"{self.path}: can't be written: {error.strerror or error}") from None

    def _last(self) -> tuple[int, int | None]:
        """Event number of the last entry, and where the next one goes; None where the file has to be written anew."""
        try:
            with self.path.open("rb") as file:
                if file.read(len(_HEAD)) != _HEAD:
                    return 0, None
                size = file.seek(0, 2)
                start = max(len(_HEAD), size - 4096)
                file.seek(start)
                end = file.read()
        except OSError:
            return 0, None
        if not end.endswith(_TAIL):
            return 0, None
        end = end[: -len(_TAIL)]
        lines = end.splitlines()
        if not lines:
            return (0, size - len(_TAIL)) if start == len(_HEAD) else (0, None)
        try:
            return int(json.loads(lines[-1].lstrip(b",").rstrip(b","))["event"]), size - len(_TAIL)
        except (ValueError, KeyError, TypeError):
            return 0, None


def logged(store: SceneStore, counters: Counters) -> list[LogEntry]:
    """The entries of a memory's log, oldest first, with the archetypes of the scenes that are still there."""
    records = [_entry(*row) for row in store.rows(_SELECT, (0, *_KINDS))]
    entries = [LogEntry.parse(record) for record in records]
    wanted = (one.scene for one in entries if one.scene is not None and not one.archetypes and not one.chain)
    archetypes = {scene.id: tuple(counters.archetypes_of(scene)) for scene in store.get_many(wanted)}
    return [
        one if one.archetypes or one.chain else replace(one, archetypes=archetypes.get(one.scene or 0, ()))
        for one in entries
    ]


def _entry(event: int, at: int, kind: str, scene: int | None, detail: str) -> dict[str, Any]:
    return {"event": event, "at": to_iso(at), "what": kind, "scene": scene, **json.loads(detail)}


def _line(event: int, at: int, kind: str, scene: int | None, detail: str) -> bytes:
    entry = _entry(event, at, kind, scene, detail)
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
