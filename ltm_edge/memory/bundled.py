"""A bundle's FAISS folder as the store of record that its sessions begin with.

The same folder gives the same bytes: nothing of the moment or of chance goes into the store. Scenes of one session are
linked in their order, as they would be if they had been told one after the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
from pathlib import Path

from ltm_edge.memory.faiss_folder import Record, read_records
from ltm_edge.memory.records import LEVELS, Link, Policy, from_iso, to_iso
from ltm_edge.memory.store import STORE_NAME, SceneStore

__all__ = ["store_of_folder"]

_UID = re.compile(r"[0-9a-f]{32}")
_SECOND = 1_000_000


def store_of_folder(folder: Path, target: Path) -> int:
    """Write the scenes of a FAISS folder into a new store; returns how many, and writes nothing where there are none.

    What has no time of its own stands a second after the scene before it in its session, or else at the beginning of
    1970.

    Args:
        folder: with ``meta.json``.
        target: the file to write.

    Raises:
        InputError: the folder can't be read, or a record is no scene; names the record.
        MemoryStoreError: the store can't be written.
    """
    records = read_records(folder)
    if not records:
        return 0
    with tempfile.TemporaryDirectory(prefix="ltm-memory-") as scratch:
        store = SceneStore(Path(scratch) / STORE_NAME)
        try:
            with store.transaction():
                _fill(store, records)
                store.run("UPDATE migrations SET applied = ?", (to_iso(0),))
            store.copy_to(target)
        finally:
            store.close()
    return len(records)


def _fill(store: SceneStore, records: list[Record]) -> None:
    seen: set[str] = set()
    before: dict[str, tuple[int, int]] = {}  # by session: the last scene and its time
    for record in records:
        known = record.known
        uid = known.get("uid", "")
        if not _UID.fullmatch(uid) or uid in seen:
            spelled = json.dumps([record.number, record.scene.to_dict()], ensure_ascii=False, sort_keys=True)
            uid = hashlib.sha256(spelled.encode("utf-8")).hexdigest()[:32]
        seen.add(uid)
        session, level = known.get("session", ""), known.get("level", LEVELS[0])
        level = LEVELS.index(level) if level in LEVELS else 0
        earlier, last = before.get(session, (0, record.number * _SECOND))
        created = _created(record, last + _SECOND if earlier else last)
        number = store.insert(
            record.scene,
            uid=uid,
            text=known.get("text", ""),
            keys=known.get("keys", ()),
            level=level,
            session=session,
            template=known.get("template", ""),
            phase=known.get("phase"),
            provenance="imported",
            created=created,
            strength=Policy().strength,
        )
        if session and level == 0:
            if earlier:
                store.link(Link(number, earlier, "predecessor"))
            before[session] = number, created


def _created(record: Record, default: int) -> int:
    with contextlib.suppress(ValueError, OverflowError):
        return from_iso(record.known.get("created", ""))
    return default
