"""`integration_log.json`: what was strengthened or weakened, by what, from which to which value, when.

Append-only JSON Lines inside an envelope, so that at rest the whole file is one JSON object: the first line opens it,
each further line is one entry, the last line closes it. The store's events are the record; a log that was cut by a
crash is repaired from them.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ltm_edge.files import write_atomic
from ltm_edge.memory.records import to_iso
from ltm_edge.memory.store import SceneStore

__all__ = ["LOG_NAME", "IntegrationLog"]

LOG_NAME = "integration_log.json"

_HEAD = b'{"format":"ltm-integration-log","version":1,"entries":[\n'
_TAIL = b"]}\n"
# Kinds of events that are part of the log, and the word they have in it.
_KINDS = ("strengthened", "weakened", "superseded", "consolidated")

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
        marks = ",".join("?" * len(_KINDS))
        sql = f"SELECT id, at, kind, scene, detail FROM events WHERE id > ? AND kind IN ({marks}) ORDER BY id"
        if not store.rows(f"{sql} LIMIT 1", (last, *_KINDS)):
            return 0
        with store.transaction():
            last, end = self._last()
            rows = store.rows(sql, (last, *_KINDS))
            lines = [_entry(*row) for row in rows]
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


def _entry(event: int, at: int, kind: str, scene: int | None, detail: str) -> bytes:
    entry: dict[str, Any] = {"event": event, "at": to_iso(at), "what": kind, "scene": scene, **json.loads(detail)}
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
