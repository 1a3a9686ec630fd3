"""FAISS folders: ``scene_embeddings.index`` (a faiss.IndexFlatIP) and ``meta.json`` with one record per row.

Writing needs the extra ``faiss``. Reading doesn't: the records are all that is taken, and vectors are computed
again, since faiss reads index files without checking them and a stranger's vectors may be of any model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltm_edge.errors import InputError, SchemaError
from ltm_edge.files import write_atomic
from ltm_edge.memory.protocols import Floats
from ltm_edge.memory.records import StoredScene
from ltm_edge.scene.pvq import MAX_TEXT_CHARS
from ltm_edge.scene.record import Scene

__all__ = ["read_folder", "write_folder"]

INDEX = "scene_embeddings.index"
META = "meta.json"
MAX_META_BYTES = 256 << 20


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
        "format": "ltm-memory-faiss",
        "version": 1,
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
        InputError: no meta.json, too large, or a record is no scene; names the record.
    """
    path = folder / META
    try:
        size = path.stat().st_size
        if size > MAX_META_BYTES:
            raise InputError(f"{path}: {size} bytes; at most {MAX_META_BYTES}")
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    records = found.get("scenes") if isinstance(found, dict) else found
    if not isinstance(records, list):
        raise InputError(f"{path}: expected a list of scenes, or an object with one under scenes")
    out: list[tuple[Scene, dict[str, Any]]] = []
    for number, record in enumerate(records):
        where = f"{path}: scenes[{number}]"
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected an object")
        try:
            scene = Scene.from_dict(record.get("scene", record), where)
        except SchemaError as error:
            raise InputError(str(error)) from None
        known: dict[str, Any] = {}
        for key in ("text", "session", "template", "phase"):
            value = record.get(key) if "scene" in record else None
            if isinstance(value, str) and len(value) <= (MAX_TEXT_CHARS if key == "text" else 200):
                known[key] = value
        keys = record.get("keys") if "scene" in record else None
        if isinstance(keys, list):
            known["keys"] = [key[:200] for key in keys[:100] if isinstance(key, str)]
        out.append((scene, known))
    return out
