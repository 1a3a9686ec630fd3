"""Vector spaces of a memory: one per embedder, each with its rows in the store and its index file.

A scene is embedded by the first embedder whose vocabulary covers it. Vectors of different embedders are never compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltm_edge.errors import IndexStale, MemoryStoreError
from ltm_edge.memory.index import VectorIndex
from ltm_edge.memory.protocols import Embedder, Floats, Notice, Progress
from ltm_edge.memory.records import Policy
from ltm_edge.memory.store import SceneStore
from ltm_edge.scene.record import Scene

__all__ = ["INDEX_NAME", "Embedded", "Space", "Spaces"]

INDEX_NAME = "scene_embeddings.index"

_MAX_CHARS = 8000  # of one text; embedders read some hundred tokens at most
_BATCH = 64
_LAST = 2**62
_SAVE_AFTER = 4096  # rows read into an index since it was saved last: write it even if nobody closes the memory

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of one scene, float32 [dim] of length 1, in the space of number ``space``."""

    space: int
    meaning: Floats
    tension: Floats
    centre: Floats


class Space:
    """The vectors of one embedder."""

    def __init__(self, number: int, embedder: Embedder, path: Path) -> None:
        self.number = number
        self.embedder = embedder
        self.path = path
        self.index: VectorIndex | None = None
        self.known = 0  # generation of the store up to which the index has followed
        self.unsaved = 0

    def embed(self, texts: list[str]) -> Floats:
        """Vectors of texts, checked.

        Raises:
            MemoryStoreError: the embedder returned something else than float32 [n, dim] of finite, non-zero vectors.
        """
        found = np.asarray(self.embedder.embed([text[:_MAX_CHARS] for text in texts]), dtype=np.float32)
        dim = self.embedder.dim
        if found.shape != (len(texts), dim):
            raise MemoryStoreError(
                f"embedder {self.embedder.id}: returned vectors of shape {found.shape}; expected {(len(texts), dim)}"
            )
        return _unit(found, f"embedder {self.embedder.id}")


class Spaces:
    """The present embedders' spaces, in order of preference."""

    def __init__(
        self, store: SceneStore, folder: Path, embedders: Sequence[Embedder], policy: Policy, notice: Notice
    ) -> None:
        """Find or make the spaces.

        Raises:
            MemoryStoreError: an embedder has another dimension than the vectors that carry its name.
        """
        self._store = store
        self._folder = folder
        self._policy = policy
        self._notice = notice
        self._said = False
        self.all: list[Space] = []
        names: set[str] = set()
        for embedder in embedders:
            if embedder.id in names:
                continue
            names.add(embedder.id)
            name = INDEX_NAME
            if self.all:
                digest = hashlib.blake2b(embedder.id.encode("utf-8"), digest_size=4).hexdigest()
                name = f"scene_embeddings-{digest}.index"
            self.all.append(Space(self._number(embedder), embedder, folder / name))

    def _number(self, embedder: Embedder) -> int:
        rows = self._store.rows("SELECT id, dim FROM spaces WHERE embedder = ?", (embedder.id,))
        if rows:
            if rows[0][1] != embedder.dim:
                raise MemoryStoreError(
                    f"{self._store.path}: vectors of embedder {embedder.id} have {rows[0][1]} components, it gives "
                    f"{embedder.dim} now; an embedder of other vectors must have another id"
                )
            return int(rows[0][0])
        if not self._store.writable:
            return 0  # no rows have it
        with self._store.transaction():
            self._store.run("INSERT OR IGNORE INTO spaces (embedder, dim) VALUES (?, ?)", (embedder.id, embedder.dim))
        return int(self._store.rows("SELECT id FROM spaces WHERE embedder = ?", (embedder.id,))[0][0])

    # Embedding.

    def choose(self, text: str) -> Space | None:
        """The first space whose embedder covers a text, or None; the first time that happens it is said."""
        for place, space in enumerate(self.all):
            if space.embedder.covers(text[:_MAX_CHARS]):
                if place and not self._said:
                    self._said = True
                    self._notice(
                        f"the embedder {self.all[0].embedder.id} can't represent some of this text; "
                        f"such scenes are embedded by {space.embedder.id} in a space of their own"
                    )
                return space
        if self.all and not self._said:
            self._said = True
            self._notice(
                f"the embedder {self.all[0].embedder.id} can't represent some of this text; such scenes are found "
                "by their words only, until a multilingual embedder is named"
            )
        return None

    def embed_scene(self, scene: Scene, text: str, *, echo: bool = False) -> Embedded | None:
        """Vectors of a scene; None where no embedder covers it."""
        return self.embed_scenes([(scene, text, echo)])[0]

    def embed_scenes(self, scenes: Sequence[tuple[Scene, str, bool]]) -> list[Embedded | None]:
        """Vectors of (scene, what was said, echo), in one call of each embedder that is needed."""
        found: list[Embedded | None] = [None] * len(scenes)
        chosen = [self.choose("\n".join((text, "" if echo else s.response, s.tension))) for s, text, echo in scenes]
        for space in self.all:
            mine = [i for i, one in enumerate(chosen) if one is space]
            if not mine:
                continue
            texts: list[str] = []
            for i in mine:
                scene, said, _ = scenes[i]
                texts += [said or scene.response, scene.response, scene.tension, scene.resonance_center]
            vectors = space.embed(texts).reshape(len(mine), 4, -1)
            share = np.float32(self._policy.said_share)
            for i, (said, response, tension, centre) in zip(mine, vectors, strict=True):
                alone = not scenes[i][1] or scenes[i][2]
                meaning = said if alone else _unit((share * said + (1 - share) * response)[None], "scene")[0]
                found[i] = Embedded(space.number, meaning, tension, centre)
        return found

    def insert(self, scene: int, vectors: Embedded | None) -> None:
        """Store a scene's vectors, inside a transaction. Without vectors it is noted that no embedder covers it."""
        generation = self._store.generation
        sql = (
            "INSERT OR REPLACE INTO embeddings (space, scene, meaning, tension, centre, generation) "
            "VALUES (?, ?, ?, ?, ?, ?)"
        )
        if vectors is not None:
            blobs = (pack(vectors.meaning), pack(vectors.tension), pack(vectors.centre))
            self._store.run(sql, (vectors.space, scene, *blobs, generation))
            return
        for space in self.all:
            self._store.run(sql, (space.number, scene, b"", b"", b"", generation))

    # What this memory lacks.

    def missing(self) -> list[int]:
        """Scenes that none of the present embedders has seen yet: of another embedder, or added without one."""
        if not self.all:
            return []
        numbers = [space.number for space in self.all]
        marks = ",".join("?" * len(numbers))
        rows = self._store.rows(
            f"SELECT s.id FROM scenes s LEFT JOIN embeddings e ON e.scene = s.id AND e.space IN ({marks}) "
            "GROUP BY s.id HAVING count(e.id) < ? AND coalesce(max(length(e.meaning)), 0) = 0",
            (*numbers, len(numbers)),
        )
        return [row[0] for row in rows]

    def fill(self, progress: Progress | None = None) -> int:
        """Embed what is missing, in transactions of some dozen scenes; returns how many scenes that were."""
        todo = self.missing()
        for i in range(0, len(todo), _BATCH):
            scenes = self._store.get_many(todo[i : i + _BATCH])
            vectors = self.embed_scenes([(one.scene, one.text, one.echo) for one in scenes])
            with self._store.transaction():
                alive = {one.id for one in self._store.get_many(one.id for one in scenes)}
                for one, found in zip(scenes, vectors, strict=True):
                    if one.id in alive:
                        self.insert(one.id, found)
            if progress is not None:
                progress(min(i + _BATCH, len(todo)), len(todo))
        return len(todo)

    def drop_others(self) -> None:
        """Remove the vectors of embedders that aren't among the present ones, inside a transaction."""
        numbers = [space.number for space in self.all]
        marks = ",".join("?" * len(numbers))
        self._store.run(f"DELETE FROM embeddings WHERE space NOT IN ({marks})", numbers)
        self._store.run(f"DELETE FROM spaces WHERE id NOT IN ({marks})", numbers)

    # Index.

    def nearest(
        self, space: Space, query: Floats, k: int, *, allowed: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        """Ids and cosines of the nearest scenes of one space, best first."""
        index = self.follow(space)
        if not len(index) or k <= 0:
            return []
        chosen = None if allowed is None else np.asarray(allowed, dtype=np.int64)
        ids, scores = index.search(query[None].astype(np.float32), min(k, len(index)), allowed=chosen)
        return [(int(i), float(s)) for i, s in zip(ids[0], scores[0], strict=True) if i >= 0]

    def follow(self, space: Space) -> VectorIndex:
        """The space's index, with every change since it was last looked at."""
        store = self._store
        newest = store.newest_generation()
        if space.index is None:
            self._load(space)
        if space.index is not None and space.known < int(store.fact("gone_floor")):
            space.index = None  # what went before the last compact can't be told any more
        if space.index is None:
            space.index = VectorIndex(space.embedder.dim)
            space.known = -1
        if space.known == newest:
            return space.index
        gone = store.rows("SELECT scene FROM gone WHERE generation > ?", (space.known,))
        if gone:
            space.index.remove(np.array([row[0] for row in gone], dtype=np.int64))
        changed = len(gone)
        last = (space.known, _LAST)
        while rows := store.rows(
            "SELECT generation, scene, meaning FROM embeddings WHERE space = ? AND (generation, scene) > (?, ?) "
            "ORDER BY generation, scene LIMIT 4096",
            (space.number, *last),
        ):
            last = (rows[-1][0], rows[-1][1])
            filled = [(row[1], row[2]) for row in rows if len(row[2]) == 2 * space.embedder.dim]
            if filled:
                vectors = _unit(np.stack([unpack(blob) for _, blob in filled]), str(store.path))
                space.index.add(np.array([number for number, _ in filled], dtype=np.int64), vectors)
            changed += len(rows)
        space.known = newest
        space.unsaved += changed
        if space.unsaved >= _SAVE_AFTER:
            self.save(space)
        return space.index

    def _load(self, space: Space) -> None:
        rows = self._store.rows("SELECT index_generation FROM spaces WHERE id = ?", (space.number,))
        stamp = rows[0][0] if rows else None
        if stamp is None:
            return
        try:
            space.index = VectorIndex.load(
                space.path, dim=space.embedder.dim, generation=stamp, embedder=_index_key(space.embedder)
            )
            space.known = stamp
        except IndexStale as error:
            _log.info("%s; built again", error)

    def save(self, space: Space) -> None:
        """Write the index file, a cache: whatever keeps it from being written is logged and otherwise ignored."""
        if space.index is None or not self._store.writable or not space.unsaved:
            return
        try:
            space.index.save(space.path, generation=space.known, embedder=_index_key(space.embedder))
            with self._store.transaction():
                self._store.run("UPDATE spaces SET index_generation = ? WHERE id = ?", (space.known, space.number))
            space.unsaved = 0
        except (OSError, MemoryStoreError) as error:
            _log.warning("%s: the index wasn't saved, it will be built again: %s", space.path, error)

    def compact(self) -> None:
        """Rewrite the index files without what was deleted; files of embedders that aren't present go."""
        keep = {space.path for space in self.all}
        for path in self._folder.glob("scene_embeddings*.index"):
            if path not in keep:
                with contextlib.suppress(OSError):
                    path.unlink()
        for space in self.all:
            index = self.follow(space)
            index.compact()
            space.unsaved += 1
            self.save(space)

    def close(self) -> None:
        """Save what is unsaved."""
        for space in self.all:
            if space.index is not None:
                with contextlib.suppress(MemoryStoreError):
                    self.follow(space)
            self.save(space)

    # Rows.

    def rows(self, space: Space, numbers: Iterable[int]) -> dict[int, Floats]:
        """Meaning, tension and centre of scenes of one space, float32 [3, dim] each, by id.

        Raises:
            MemoryStoreError: a scene's vectors are not of the space's dimension.
        """
        found: dict[int, Floats] = {}
        wanted = list(numbers)
        shape, size = (3, space.embedder.dim), 2 * space.embedder.dim
        for i in range(0, len(wanted), 500):
            part = wanted[i : i + 500]
            marks = ",".join("?" * len(part))
            for scene, *blobs in self._store.rows(
                "SELECT scene, meaning, tension, centre FROM embeddings "
                f"WHERE space = ? AND length(meaning) > 0 AND scene IN ({marks})",
                (space.number, *part),
            ):
                if set(map(len, blobs)) != {size}:
                    raise MemoryStoreError(
                        f"scene {scene}: its vectors have {[len(blob) // 2 for blob in blobs]} numbers, the embedder's "
                        f"have {space.embedder.dim}; forget the scene or import an export"
                    )
                found[scene] = unpack(b"".join(blobs)).reshape(shape)
        return found


def _index_key(embedder: Embedder) -> str:
    """What an index file holds of an embedder's id, which may be of any length."""
    return hashlib.blake2b(embedder.id.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def pack(vector: Floats) -> bytes:
    """A vector as it stands in the store: float16, little-endian."""
    return np.asarray(vector, dtype="<f2").tobytes()


def unpack(blob: bytes) -> Floats:
    """A vector (or several) from the store, float32 [dim]; of length 1 but for the rounding of float16."""
    return np.frombuffer(blob, dtype="<f2").astype(np.float32)


def _unit(vectors: Floats, whose: str) -> Floats:
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0))[:, 0])
    if len(bad):
        raise MemoryStoreError(f"{whose}: vector {bad[0]} is zero or not finite")
    unit: Floats = (vectors / norms).astype(np.float32)
    return unit
