"""A memory's folder as a whole: its figures, its description, clean copies of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

from ltm_edge.errors import InputError, MemoryStoreError
from ltm_edge.files import write_atomic
from ltm_edge.memory import counting
from ltm_edge.memory.exchange import export_scenes, import_scenes, read_store
from ltm_edge.memory.records import Stats, to_iso
from ltm_edge.memory.store import STORE_NAME, SceneStore
from ltm_edge.memory.vectors import Vectors

__all__ = [
    "META_NAME",
    "compact",
    "export_faiss",
    "export_file",
    "figures",
    "lost",
    "pack",
    "problems",
    "seed",
    "write_meta",
]

META_NAME = "meta.json"


def figures(store: SceneStore, folder: Path) -> Stats:
    """Figures of the memory in a folder."""
    rows = store.rows

    def count(sql: str) -> int:
        return int(rows(f"SELECT count(*) FROM {sql}")[0][0])

    first, last = rows("SELECT min(created), max(created) FROM scenes WHERE level = 0")[0]
    embedders = dict(
        rows(
            "SELECT spaces.embedder, count(*) FROM embeddings JOIN spaces ON spaces.id = embeddings.space "
            "WHERE length(meaning) > 0 GROUP BY spaces.id ORDER BY spaces.id"
        )
    )
    unembedded = "scenes WHERE id NOT IN (SELECT scene FROM embeddings WHERE length(meaning) > 0)"
    return Stats(
        scenes=count("scenes WHERE level = 0"),
        arcs=count("scenes WHERE level = 1"),
        sagas=count("scenes WHERE level = 2"),
        links=count("links"),
        sessions=count("(SELECT DISTINCT session FROM scenes WHERE session <> '')"),
        pinned=count("scenes WHERE pinned = 1"),
        superseded=count("scenes WHERE superseded_by IS NOT NULL"),
        echoes=count("scenes WHERE echo = 1"),
        unembedded=count(unembedded),
        bytes=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        embedders=embedders,
        first=to_iso(first) if first is not None else None,
        last=to_iso(last) if last is not None else None,
    )


def problems(store: SceneStore, vectors: Vectors) -> list[str]:
    """What is wrong with a memory; nothing where all is well."""
    found = store.integrity()
    if found:
        return found
    found += [f"scene {number}: its record can't be read: {why}" for number, why in store.unreadable()]
    found += counting.problems(store) if not found else ()
    spaces = vectors.opened
    for space in spaces.all if spaces is not None else ():
        index = spaces.follow(space) if spaces is not None else ()
        sql = "SELECT count(*) FROM embeddings WHERE space = ? AND length(meaning) > 0"
        stored = store.rows(sql, (space.number,))[0][0]
        if len(index) != stored:
            found.append(f"{space.path.name}: {len(index)} vectors, the store has {stored}")
    return found


def compact(store: SceneStore, vectors: Vectors, folder: Path) -> None:
    """Rewrite all files without what was deleted, and drop vectors of embedders that aren't used any more.

    Raises:
        MemoryStoreError: another process is using the memory, or there is no room for a second copy.
    """
    spaces = vectors.open()
    if spaces is not None:
        with store.transaction():
            spaces.drop_others()
    store.compact()
    for path in folder.glob(".*.tmp"):  # left by a process that was killed while it wrote
        with contextlib.suppress(OSError):
            path.unlink()
    if spaces is not None:
        spaces.compact()
    store.checkpoint()
    write_meta(store, folder)


def lost(folder: Path, store: Path) -> str:
    """A sentence for the user where scenes were kept and their file is gone or empty; empty where all is well."""
    try:
        if store.exists() and store.stat().st_size:
            return ""
        scenes = json.loads((folder / META_NAME).read_bytes())["scenes"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    if not isinstance(scenes, int) or scenes <= 0:
        return ""
    what = "is empty" if store.exists() else "is gone"
    return (
        f"{store}: {what}, {scenes} scenes stood in it; an empty memory begins; "
        "put the file back, or import an export of it"
    )


def write_meta(store: SceneStore, folder: Path) -> None:
    """`meta.json`: what the folder holds, for people and other programs. Only :func:`lost` reads it."""
    rows = store.rows("SELECT embedder, dim FROM spaces ORDER BY id")
    meta = {
        "format": "ltm-memory",
        "version": 1,
        "scenes": store.rows("SELECT count(*) FROM scenes")[0][0],
        "embedders": [{"id": name, "dim": dim} for name, dim in rows],
    }
    with contextlib.suppress(OSError):
        data = json.dumps(meta, ensure_ascii=False, indent=1).encode("utf-8") + b"\n"
        write_atomic(folder / META_NAME, data, mode=0o600)


def export_file(store: SceneStore, path: Path) -> int:
    """Write an export to a file, which it replaces as a whole; returns the number of scenes.

    Raises:
        MemoryStoreError: it can't be written.
    """
    temporary = path.with_name(f".{path.name[:80]}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            count = export_scenes(store, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise MemoryStoreError(f"{path}: can't be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return count


def export_faiss(store: SceneStore, vectors: Vectors, folder: Path) -> int:
    """Write the scenes that the first embedder covers as a FAISS folder; returns how many.

    Raises:
        InputError: no embedder, faiss isn't installed, or the folder holds such files already.
    """
    from ltm_edge.memory.faiss_folder import write_folder

    spaces = vectors.open()
    if spaces is None or not spaces.all:
        raise InputError("a FAISS folder holds vectors, and there is no embedder to make them")
    space = spaces.all[0]
    scenes = store.select()
    rows = {number: row[0] for number, row in spaces.rows(space, [one.id for one in scenes]).items()}
    return write_folder(folder, scenes, rows, space.embedder.id, space.embedder.dim)


def pack(store: SceneStore, folder: Path) -> int:
    """Write a clean copy of a store into a folder that has none; returns the number of scenes.

    Raises:
        MemoryStoreError: the folder holds a memory already, or can't be written.
    """
    if (folder / STORE_NAME).exists():
        raise MemoryStoreError(f"{folder / STORE_NAME}: exists already; remove it, or name another folder")
    temporary = folder / f".{STORE_NAME}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        store.copy_to(temporary)
        temporary.replace(folder / STORE_NAME)
        write_meta(store, folder)
    except OSError as error:
        raise MemoryStoreError(f"{folder}: can't be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return int(store.rows("SELECT count(*) FROM scenes")[0][0])


def seed(store: SceneStore, folder: Path) -> int:
    """Take in the memory of another folder, if this one is empty; returns the number of scenes taken.

    Raises:
        MemoryStoreError: it isn't a memory, or of a newer version.
    """
    source = folder / STORE_NAME
    if not source.is_file() or store.rows("SELECT 1 FROM scenes LIMIT 1"):
        return 0
    text = io.StringIO()
    with contextlib.closing(read_store(source)) as other:
        export_scenes(other, text)
    return import_scenes(store, io.BytesIO(text.getvalue().encode("utf-8")), name=str(source)).scenes
