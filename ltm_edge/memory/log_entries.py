"""Entries of an integration log, read from a memory's events or from a file that the training wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltm_edge.errors import InputError
from ltm_edge.memory.records import from_iso

__all__ = ["FORMAT", "VERSION", "LogEntry", "read_log"]

FORMAT = "ltm-integration-log"
VERSION = 1

MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of an integration log.

    Attributes:
        at: when, microseconds since 1970 in UTC; None where the entry doesn't say.
        what: ``accepted``, ``strengthened``, ``weakened``, ``superseded``, ``consolidated``, ``forgotten``,
            ``trained`` or another program's word.
        scene: id of the scene; None where it is about none.
        archetypes: what it counts for: its own archetype, or those of its scene.
        chain: number or name of the chain; empty where it is about none.
        before, after: the value before and after; None where there is none.
        by: what did it, such as ``use`` or ``training``; for ``superseded`` the newer scene's id.
        record: the whole entry as it stands in the file.
    """

    at: int | None
    what: str
    scene: int | None
    archetypes: tuple[str, ...]
    chain: str
    before: float | None
    after: float | None
    by: str
    record: Mapping[str, Any]

    @staticmethod
    def parse(record: object) -> LogEntry:
        """The entry in plain data; keys that aren't known are kept in ``record``.

        Raises:
            ValueError: a known key has a wrong value; says which.
        """
        if not isinstance(record, dict):
            raise ValueError(f"expected an object, found {type(record).__name__}")
        what = record.get("what")
        if not isinstance(what, str) or not what:
            raise ValueError(f"what: expected a word, found {_short(what)}")
        scene = record.get("scene")
        if scene is not None and (isinstance(scene, bool) or not isinstance(scene, int)):
            raise ValueError(f"scene: expected a number, found {_short(scene)}")
        archetype = record.get("archetype")
        if archetype is not None and not isinstance(archetype, str):
            raise ValueError(f"archetype: expected a name, found {_short(archetype)}")
        return LogEntry(
            at=_moment(record.get("at")),
            what=what,
            scene=scene,
            archetypes=(archetype,) if archetype else (),
            chain=_name(record, "chain"),
            before=_value(record, "from"),
            after=_value(record, "to"),
            by=_name(record, "by"),
            record=record,
        )


def read_log(path: Path) -> list[LogEntry]:
    """The entries of a log file, in the order of the file.

    Raises:
        InputError: it can't be read, is too large, no log, of a newer version, or an entry is damaged.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path}: more than {MAX_BYTES} bytes, which is the limit")
    try:
        found = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; restore it from a copy") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged or cut off, not JSON: {error}; restore it from a copy") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f'{path}: no integration log: expected an object with "format": "{FORMAT}"')
    version = found.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise InputError(f"{path}: version {_short(version)}; this ltm-edge reads up to {VERSION}; update ltm-edge")
    entries = found.get("entries")
    if not isinstance(entries, list):
        raise InputError(f"{path}: entries: expected a list, found {type(entries).__name__}")
    out = []
    for number, record in enumerate(entries):
        try:
            out.append(LogEntry.parse(record))
        except ValueError as error:
            raise InputError(f"{path}: entries[{number}]: {error}") from None
    return out


def _short(value: object) -> str:
    return repr(value)[:40]


def _moment(value: object) -> int | None:
    if value is None:
        return None
    try:
        return from_iso(value if isinstance(value, str) else "")
    except (ValueError, OverflowError):
        raise ValueError(
            f"at: expected a time with its zone, such as 2026-01-31T09:30:00+00:00, found {_short(value)}"
        ) from None


def _value(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{key}: expected a number, found {_short(value)}")
    return float(value)


def _name(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{key}: expected a name or a number, found {_short(value)}")
    return str(value)
