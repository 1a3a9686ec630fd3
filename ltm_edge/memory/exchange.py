"""Export and import as JSON Lines, without loss: a header, then one scene or one link a line, named by their uids.

    {"format": "ltm-memory", "version": 2}
    {"kind": "scene", "uid": "…", "level": "scene", "created": "…", …, "accepted": […], "text": "…", "scene": {…}}
    {"kind": "link", "source": "…", "target": "…", "type": "predecessor", "weight": 1.0}

`accepted` has a pair for each accepted turn that the scene holds: when, and the critics' score or null. Version 1
had none of it; its scenes count as accepted once, when they were told. Vectors and the index aren't part of an export:
they are computed again.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ltm_edge.errors import InputError, SchemaError
from ltm_edge.memory.counting import Turn, move_turns, store_turn, turns_of
from ltm_edge.memory.records import LEVELS, LINK_KINDS, LORE, Link, StoredScene, from_iso, microseconds, to_iso
from ltm_edge.memory.store import SceneStore
from ltm_edge.scene.pvq import MAX_TEXT_CHARS
from ltm_edge.scene.record import Scene

__all__ = ["FORMAT", "VERSION", "BadLine", "Imported", "export_scenes", "import_scenes", "read_store"]

FORMAT = "ltm-memory"
VERSION = 2

MAX_LINE_BYTES = 8 << 20
_BATCH = 1000
_REPORTED = 100
_UID = re.compile(r"[0-9a-f]{32}")
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")

_SCENE_KEYS = {
    "uid", "level", "created", "session", "template", "phase", "provenance", "strength", "strengthened", "pinned",
    "echo", "keys", "superseded_by", "superseded_at", "accepted", "text", "scene",
}  # fmt: skip


class BadLine(ValueError):
    """A line that can't be taken; the message says why."""


@dataclass(slots=True)
class Imported:
    """What an import did.

    Attributes:
        scenes, links: taken in.
        known: scenes that were here already.
        bad: (line number, what is wrong) of the first hundred lines that were passed over.
        bad_lines: how many there were in all.
    """

    scenes: int = 0
    links: int = 0
    known: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    bad_lines: int = 0


def read_store(path: Path) -> SceneStore:
    """A store that is only read, such as a bundle's.

    Raises:
        MemoryStoreError: it isn't one, or of a newer version.
    """
    return SceneStore(path, read_only=True)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def export_scenes(store: SceneStore, file: IO[str]) -> int:
    """Write all scenes, then all links; returns the number of scenes."""
    file.write(_line({"format": FORMAT, "version": VERSION}))
    last = count = 0
    while scenes := store.select("id > ?", (last,), limit=_BATCH):
        last = scenes[-1].id
        uids = store.uids(one.superseded_by for one in scenes if one.superseded_by is not None)
        turns = turns_of(store, scenes[0].id, last)
        for one in scenes:
            file.write(_line(_scene_record(one, uids, turns.get(one.id, ()))))
        count += len(scenes)
    for rows in store.links_by_uid():
        for source, target, kind, weight in rows:
            file.write(_line({"kind": "link", "source": source, "target": target, "type": kind, "weight": weight}))
    return count


def _scene_record(one: StoredScene, uids: dict[int, str], turns: Iterable[Turn]) -> dict[str, Any]:
    return {
        "kind": "scene",
        "uid": one.uid,
        "level": LEVELS[one.level],
        "created": to_iso(one.created),
        "session": one.session,
        "template": one.template,
        "phase": one.phase,
        "provenance": one.provenance,
        "strength": one.strength,
        "strengthened": to_iso(one.strengthened),
        "pinned": one.pinned,
        "echo": one.echo,
        "keys": list(one.keys),
        "superseded_by": uids.get(one.superseded_by) if one.superseded_by is not None else None,
        "superseded_at": None if one.superseded_at is None else to_iso(one.superseded_at),
        "accepted": [[to_iso(at), score] for at, score in turns],
        "text": one.text,
        "scene": one.scene.to_dict(),
    }


def import_scenes(store: SceneStore, file: IO[bytes], *, name: str, skip_bad: bool = False) -> Imported:
    """Read scenes and links.

    Without ``skip_bad`` all or nothing is taken, in one transaction. With it every thousand lines are kept, and a line
    that can't be taken is passed over and reported. Links to scenes that aren't there, and those that would close a
    circle, count as bad lines.

    Raises:
        InputError: it isn't an export, of a newer version, or (without ``skip_bad``) a line can't be taken.
    """
    done = Imported()
    pending: list[tuple[int, int, str, int | None]] = []  # line, id, uid of what superseded it, when
    lines = _numbered(file)
    version = _check_header(next(lines, (1, b"")), name)

    def take(number: int, raw: bytes | str) -> None:
        try:
            if isinstance(raw, str):
                raise BadLine(raw)
            _take(store, number, raw, version, done, pending)
        except BadLine as error:
            if not skip_bad:
                raise InputError(f"{name}:{number}: {error}; nothing was imported") from None
            done.bad_lines += 1
            if len(done.bad) < _REPORTED:
                done.bad.append((number, str(error)))

    def finish() -> None:
        for number, scene, uid, at in pending:
            found = store.rows("SELECT id FROM scenes WHERE uid = ?", (uid,))
            if not found or _circle(store, scene, found[0][0]):
                take(number, f"superseded_by: no such scene, or a circle: {uid}")
                continue
            store.run("UPDATE scenes SET superseded_by = ?, superseded_at = ? WHERE id = ?", (found[0][0], at, scene))
            newer = store.get_many([found[0][0]])[0]
            if version == 1 and newer.provenance == "edited":  # there the turn still stands with the old one
                move_turns(store, scene, newer)

    if not skip_bad:
        with store.transaction():
            for number, raw in lines:
                take(number, raw)
            finish()
        return done
    more = True
    while more:
        with store.transaction():
            more = False
            for count, (number, raw) in enumerate(lines, 1):
                take(number, raw)
                if count >= _BATCH:
                    more = True
                    break
    with store.transaction():
        finish()
    return done


def _circle(store: SceneStore, old: int, new: int) -> bool:
    """Whether the new scene was itself superseded by the old one, over however many others: both would be gone."""
    if store.reaches(old, new, "supersedes"):
        return True
    seen: set[int | None] = {None}
    at: int | None = new
    while at not in seen:
        seen.add(at)
        at = store.rows("SELECT superseded_by FROM scenes WHERE id = ?", (at,))[0][0]
    return old in seen


def _numbered(file: IO[bytes]) -> Iterator[tuple[int, bytes | str]]:
    """Lines with their numbers; a text instead of bytes says what is wrong with the line."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            yield number, f"longer than {MAX_LINE_BYTES} bytes, which is the limit"
            while rest := file.readline(1 << 16):
                if rest.endswith(b"\n"):
                    break
        elif raw.strip():
            yield number, raw


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError as error:
        raise BadLine(f"not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not JSON: {error}" if not isinstance(error, BadLine) else str(error)) from None
    if not isinstance(found, dict):
        raise BadLine(f"expected a JSON object, found {type(found).__name__}")
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadLine("a key stands twice in one object")
    return found


def _check_header(line: tuple[int, bytes | str], name: str) -> int:
    """The version of the format."""
    try:
        header = _object(line[1]) if isinstance(line[1], bytes) else {}
    except BadLine:
        header = {}
    if header.get("format") != FORMAT:
        raise InputError(f'{name}: not an export of a memory: the first line must be {{"format":"{FORMAT}",…}}')
    version = header.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise InputError(
            f"{name}: version {version!r} of the format; this ltm-edge reads up to {VERSION}; update ltm-edge"
        )
    return version


def _take(
    store: SceneStore,
    number: int,
    raw: bytes,
    version: int,
    done: Imported,
    pending: list[tuple[int, int, str, int | None]],
) -> None:
    record = _object(raw)
    kind = record.pop("kind", None)
    if kind == "scene":
        if version == 1 and "accepted" not in record:
            told = record.get("level") == "scene" and record.get("provenance") not in (*LORE, "imported", "edited")
            record["accepted"] = [[record.get("created"), None]] if told else []
        _take_scene(store, number, record, done, pending)
    elif kind == "link":
        _take_link(store, record, done)
    else:
        raise BadLine(f"kind: expected scene or link, found {kind!r}")


def _text(record: dict[str, Any], key: str, limit: int) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise BadLine(f"{key}: expected text, found {type(value).__name__}")
    if len(value) > limit:
        raise BadLine(f"{key}: {len(value)} characters; at most {limit}")
    if _NOT_TEXT.search(value):
        raise BadLine(f"{key}: holds NUL or a lone surrogate")
    return value


def _uid(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not _UID.fullmatch(value):
        raise BadLine(f"{key}: expected 32 hexadecimal digits, found {str(value)[:40]!r}")
    return value


def _flag(record: dict[str, Any], key: str) -> bool:
    value = record.get(key)
    if not isinstance(value, bool):
        raise BadLine(f"{key}: expected true or false")
    return value


def _share(record: dict[str, Any], key: str) -> float:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise BadLine(f"{key}: expected a number from 0 to 1, found {str(value)[:40]}")
    return float(value)


def _moment(record: dict[str, Any], key: str) -> int:
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return from_iso(_text(record, key, 64))
    raise BadLine(f"{key}: expected a time such as {to_iso(microseconds(None))}, found {str(record.get(key))[:40]!r}")


def _turns(record: dict[str, Any]) -> list[Turn]:
    given = record.get("accepted", [])
    if not isinstance(given, list) or (given and record.get("level") != "scene"):
        raise BadLine("accepted: expected a list of pairs of a time and a score, and none for arcs and sagas")
    turns = []
    for pair in given:
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadLine(f"accepted: expected pairs of a time and a score, found {str(pair)[:40]}")
        at = _moment({"accepted": pair[0]}, "accepted")
        turns.append((at, None if pair[1] is None else _share({"accepted": pair[1]}, "accepted")))
    return turns


def _take_scene(
    store: SceneStore,
    number: int,
    record: dict[str, Any],
    done: Imported,
    pending: list[tuple[int, int, str, int | None]],
) -> None:
    unknown = set(record) - _SCENE_KEYS
    if unknown:
        raise BadLine(f"{sorted(unknown)[0]}: unknown key")
    uid = _uid(record, "uid")
    level = record.get("level")
    if level not in LEVELS:
        raise BadLine(f"level: expected one of {', '.join(LEVELS)}, found {str(level)[:40]!r}")
    keys = record.get("keys", [])
    if not isinstance(keys, list) or len(keys) > 1000:
        raise BadLine("keys: expected a list of at most 1000 words")
    try:
        scene = Scene.from_dict(record.get("scene"), "scene")
    except SchemaError as error:
        raise BadLine(str(error)) from None
    text = _text(record, "text", MAX_TEXT_CHARS)
    created = _moment(record, "created")
    turns = _turns(record)
    phase = None if record.get("phase") is None else _text(record, "phase", 200)
    newer = None if record.get("superseded_by") is None else _uid(record, "superseded_by")
    when = None if record.get("superseded_at") is None else _moment(record, "superseded_at")
    fields: dict[str, Any] = {
        "session": _text(record, "session", 200),
        "template": _text(record, "template", 200),
        "provenance": _text(record, "provenance", 200),
        "strength": _share(record, "strength"),
        "strengthened": _moment(record, "strengthened"),
        "pinned": _flag(record, "pinned"),
        "echo": _flag(record, "echo"),
        "keys": [_text({"keys": key}, "keys", 1000) for key in keys],
    }
    there = store.rows("SELECT id FROM scenes WHERE uid = ?", (uid,))
    if there:
        same = store.get_many([there[0][0]])[0]
        if (same.scene, same.text, same.created) != (scene, text, created):
            raise BadLine(f"uid {uid}: stands for another scene here (number {same.id})")
        done.known += 1
        return
    added = store.insert(scene, uid=uid, level=LEVELS.index(level), text=text, created=created, phase=phase, **fields)
    for at, score in turns:
        store_turn(store, store.get_many([added])[0], at, score)
    store.event("imported", added, microseconds(None))
    if newer is not None:
        pending.append((number, added, newer, when))
    done.scenes += 1


def _take_link(store: SceneStore, record: dict[str, Any], done: Imported) -> None:
    unknown = set(record) - {"source", "target", "type", "weight"}
    if unknown:
        raise BadLine(f"{sorted(unknown)[0]}: unknown key")
    kind = record.get("type")
    if kind not in LINK_KINDS:
        raise BadLine(f"type: expected one of {', '.join(LINK_KINDS)}, found {str(kind)[:40]!r}")
    ends = []
    for key in ("source", "target"):
        uid = _uid(record, key)
        found = store.rows("SELECT id FROM scenes WHERE uid = ?", (uid,))
        if not found:
            raise BadLine(f"{key}: no scene {uid}")
        ends.append(found[0][0])
    if not store.link(Link(ends[0], ends[1], kind, _share(record, "weight"))):
        raise BadLine(f"{kind} link closes a circle")
    done.links += 1
