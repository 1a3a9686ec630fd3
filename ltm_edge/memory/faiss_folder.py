"""FAISS folders: ``scene_embeddings.index`` (a faiss.IndexFlatIP) and ``meta.json`` with one record per row.

Writing needs the extra ``faiss``. Reading doesn't: the records are all that is taken, and vectors are computed
again, since faiss reads index files without checking them and a stranger's vectors may be of any model. A record is a
scene or, as other programs write it, a text, which is told as a scene of what is known; one without a text is nothing
but a vector and left out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltm_edge.errors import InputError, SchemaError
from ltm_edge.files import write_atomic
from ltm_edge.memory.cards import lore_scene, one_line
from ltm_edge.memory.protocols import Floats
from ltm_edge.memory.records import StoredScene
from ltm_edge.scene.pvq import MAX_TEXT_CHARS
from ltm_edge.scene.record import Scene

__all__ = ["INDEX", "META", "Record", "read_folder", "read_records", "write_folder"]

INDEX = "scene_embeddings.index"
META = "meta.json"
FORMAT = "ltm-memory-faiss"
VERSION = 1
MAX_META_BYTES = 256 << 20

_LISTS = ("scenes", "texts", "documents", "records")
_TEXTS = ("text", "content", "page_content")
_KNOWN = ("text", "session", "template", "phase", "keys")
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Record:
    """One row's scene.

    Attributes:
        number: of the row, from 0.
        scene: what it holds.
        known: what else is said of it: text, session, template, phase, uid, created, level (text), keys (texts).
    """

    number: int
    scene: Scene
    known: Mapping[str, Any]


def write_folder(
    folder: Path, scenes: Sequence[StoredScene], vectors: Mapping[int, Floats], embedder: str, dim: int
) -> int:
    """Write the scenes that have a vector; returns how many.

    Raises:
        InputError: faiss isn't installed, the folder holds such files already, or can't be written.
    """
    try:
        import faiss
    except ImportError:
        raise InputError("writing a FAISS folder needs faiss: pip install 'ltm-edge[faiss]'") from None
    kept = [one for one in scenes if one.id in vectors]
    if any((folder / name).exists() for name in (INDEX, META)):
        raise InputError(f"{folder}: holds a memory already; name another folder")
    index = faiss.IndexFlatIP(dim)
    if kept:
        index.add(np.ascontiguousarray(np.stack([vectors[one.id] for one in kept]), dtype=np.float32))
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "embedder": embedder,
        "dimension": dim,
        "scenes": [one.to_dict() for one in kept],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{INDEX}.tmp"
        faiss.write_index(index, os.fspath(temporary))
        temporary.replace(folder / INDEX)
        write_atomic(folder / META, json.dumps(meta, ensure_ascii=False, indent=1).encode("utf-8") + b"\n")
    except (OSError, RuntimeError) as error:
        raise InputError(f"{folder}: can't be written: {error}") from None
    return len(kept)


def read_folder(folder: Path) -> list[tuple[Scene, dict[str, Any]]]:
    """Scenes of a FAISS folder and what else is known of each: text, session, template, phase, keys.

    Raises:
        InputError: no meta.json, too large, of a newer version, without texts, or a record is no scene; names it.
    """
    records = read_records(folder)
    if not records:
        raise InputError(f"{folder / META}: expected a list of scenes or texts, or an object with one under scenes")
    return [(one.scene, {key: value for key, value in one.known.items() if key in _KNOWN}) for one in records]


def read_records(folder: Path) -> list[Record]:
    """All that a FAISS folder says of its scenes, in the order of its rows; empty where it has no texts.

    Raises:
        InputError: no meta.json, too large, of a newer version, or a record is no scene; names the record.
    """
    path = folder / META
    found = _json(path)
    version = found.get("version", 1) if isinstance(found, dict) and found.get("format") == FORMAT else 1
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise InputError(f"{path}: version {version!r} of the format; this ltm-edge reads {VERSION}; update ltm-edge")
    out = []
    for number, record in enumerate(_rows(found)):
        where = f"{path}: scenes[{number}]"
        told = _text_of(record)
        if told is not None:
            scene = lore_scene(where, "memory", one_line(told, "memory"), told)
            if scene is not None:
                out.append(Record(number, scene, {}))
        elif isinstance(record, dict) and ("scene" in record or "response" in record):
            try:
                scene = Scene.from_dict(record.get("scene", record), where)
            except SchemaError as error:
                raise InputError(str(error)) from None
            out.append(Record(number, scene, _known(record, where) if "scene" in record else {}))
    return out


def _json(path: Path) -> Any:
    try:
        size = path.stat().st_size
        if size > MAX_META_BYTES:
            raise InputError(f"{path}: {size} bytes; at most {MAX_META_BYTES}")
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None


def _rows(found: Any) -> list[Any]:
    """The records: a list, a list under one of the usual names, or an object with a number for each row."""
    if isinstance(found, dict):
        named = next((name for name in _LISTS if name in found), None)
        if named is not None:
            found = found[named]
    if isinstance(found, dict) and found and all(key.isdecimal() and len(key) < 10 for key in found):
        found = [found[key] for key in sorted(found, key=int)]
    return found if isinstance(found, list) else []


def _text_of(record: Any) -> str | None:
    """The text of a record that another program wrote."""
    if isinstance(record, dict) and "scene" not in record and "response" not in record:
        record = next((record[name] for name in _TEXTS if isinstance(record.get(name), str)), None)
    return record if isinstance(record, str) else None


def _known(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for key in ("text", "session", "template", "phase", "uid", "created", "level"):
        value = record.get(key)
        if isinstance(value, str) and len(value) <= (MAX_TEXT_CHARS if key == "text" else 200):
            known[key] = value
    keys = record.get("keys")
    if isinstance(keys, list):
        known["keys"] = [key[:200] for key in keys[:100] if isinstance(key, str)]
    if any(_NOT_TEXT.search(one) for value in known.values() for one in ([value] if isinstance(value, str) else value)):
        raise InputError(f"{where}: holds NUL or a lone surrogate, which no text has")
    return known
