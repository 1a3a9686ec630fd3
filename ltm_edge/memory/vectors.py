"""The vector side of a memory: opened when it is first needed, and done without where no embedder can be had."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

from ltm_edge.errors import LtmError, MemoryStoreError
from ltm_edge.memory.protocols import Embedder, Floats, Notice, Progress
from ltm_edge.memory.records import Policy
from ltm_edge.memory.spaces import Embedded, Spaces
from ltm_edge.memory.store import SceneStore
from ltm_edge.scene.record import Scene

__all__ = ["BATCH", "MakesEmbedder", "Unembedded", "Vectors"]

BATCH = 64
"""Scenes that are embedded in one transaction."""

MakesEmbedder = Embedder | Callable[[], Embedder]


class Unembedded:
    """Stands for the vectors of a scene that the embedder failed at; they are made when it works again."""


class Vectors:
    """The spaces of a memory, and what to do when they can't be had.

    An embedder that is missing or fails is said once and never costs a scene or a recall: words find scenes too.
    """

    def __init__(
        self,
        store: SceneStore,
        folder: Path,
        embedders: Sequence[MakesEmbedder],
        policy: Policy,
        notice: Notice,
        progress: Progress | None,
        fill: bool = True,
    ) -> None:
        """Take the parts.

        Args:
            store: where vectors are kept.
            folder: where the index files lie.
            embedders: in order of preference, or what makes them.
            policy: numbers.
            notice: gets sentences for the user.
            progress: gets (done, all) while scenes are embedded again.
            fill: embed what is missing when the spaces are first opened; else only :meth:`embed_missing` does.
        """
        self._store = store
        self._folder = folder
        self._embedders = embedders
        self._policy = policy
        self._notice = notice
        self._progress = progress
        self._fill = fill
        self._spaces: Spaces | None = None
        self._said: set[str] = set()

    @property
    def opened(self) -> Spaces | None:
        """The spaces if they have been needed already."""
        return self._spaces

    def open(self) -> Spaces | None:
        """The spaces; None where no embedder can be had. What they lack is embedded the first time, unless it isn't."""
        if self._spaces is None:
            try:
                made = [_made(one) for one in self._embedders]
                self._spaces = Spaces(self._store, self._folder, made, self._policy, self._notice)
            except LtmError as error:
                self.degrade(error, "scenes are found by their words only")
                return None
            if self._fill:
                todo = self.missing()
                for start in range(0, len(todo), BATCH):
                    if not self.embed_missing(todo[start : start + BATCH]):
                        break
                    if self._progress is not None:
                        self._progress(min(start + BATCH, len(todo)), len(todo))
        return self._spaces

    def missing(self) -> list[int]:
        """Ids of the scenes that the present embedders haven't seen; none where they can't be had or kept."""
        spaces = self.open()
        return spaces.missing() if spaces is not None and self._store.writable else []

    def embed_missing(self, numbers: Sequence[int]) -> bool:
        """Embed some scenes in one transaction; False if the embedder failed, which is said."""
        spaces = self.open()
        if spaces is None:
            return False
        try:
            scenes = self._store.get_many(numbers)
            made = spaces.embed_scenes([(one.scene, one.text, one.echo) for one in scenes])
            with self._store.transaction():
                there = {one.id for one in self._store.get_many(numbers)}  # another process may have been quicker
                for one, vectors in zip(scenes, made, strict=True):
                    if one.id in there:
                        spaces.insert(one.id, vectors)
        except LtmError as error:
            self.degrade(error, "scenes stay without vectors for now")
            return False
        return True

    def embed(self, scene: Scene, text: str, echo: bool) -> Embedded | Unembedded | None:
        """Vectors of a scene; None if no embedder covers it."""
        spaces = self.open()
        if spaces is None:
            return Unembedded()
        try:
            return spaces.embed_scene(scene, text, echo=echo)
        except LtmError as error:
            self.degrade(error, "scenes are stored without vectors and embedded later")
            return Unembedded()

    def insert(self, number: int, vectors: Embedded | Unembedded | None) -> None:
        """Store what :meth:`embed` made, inside a transaction."""
        if self._spaces is not None and not isinstance(vectors, Unembedded):
            self._spaces.insert(number, vectors)

    def near(self, vectors: Embedded | Unembedded | None, k: int) -> list[tuple[int, float]]:
        """Ids and cosines of the ``k`` scenes nearest to one, best first."""
        if self._spaces is None or not isinstance(vectors, Embedded):
            return []
        space = next(one for one in self._spaces.all if one.number == vectors.space)
        return self._spaces.nearest(space, vectors.meaning, k)

    def meanings(self, numbers: Iterable[int]) -> dict[int, Floats]:
        """Meaning by id, float32 [dim]; scenes without a vector are left out."""
        spaces, wanted = self.open(), list(numbers)
        found: dict[int, Floats] = {}
        if spaces is None:
            return found
        for space in spaces.all:
            for number, (meaning, *_) in spaces.rows(space, wanted).items():
                found.setdefault(number, meaning)
        return found

    def degrade(self, error: LtmError, consequence: str) -> None:
        """Say once what goes on without vectors.

        Raises:
            LtmError: the error itself, if it isn't the vectors but the store that fails.
        """
        try:
            self._store.rows("SELECT 1 FROM scenes LIMIT 1")
        except MemoryStoreError:
            raise error from None
        message = f"{error}; {consequence}"
        if message not in self._said:
            self._said.add(message)
            self._notice(message)

    def close(self) -> None:
        """Save the index."""
        if self._spaces is not None:
            self._spaces.close()


def _made(embedder: MakesEmbedder) -> Embedder:
    made = embedder if hasattr(embedder, "embed") and not isinstance(embedder, type) else embedder()
    return cast("Embedder", made)
