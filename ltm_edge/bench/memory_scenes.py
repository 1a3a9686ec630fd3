"""Cost of what memory does besides searching: adding a scene durably, and scoring candidates."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np

from ltm_edge.bench.memory_vectors import DIM
from ltm_edge.bench.table import Stats, stats
from ltm_edge.memory.index import Floats
from ltm_edge.memory.resonance import Candidates, ResonanceQuery, resonate
from ltm_edge.scene.record import Scene
from ltm_edge.scene_memory import SceneMemory

__all__ = ["measure_adding", "measure_scoring"]

_SCENES = 400
_WARM = 50
_CANDIDATES = 1000
_ROUNDS = 200
_DAY = 86400.0

_clock = time.perf_counter_ns


class _TimedEmbedder:
    """Vectors that stand for texts at once; keeps count of the time it took, to be taken off."""

    dim = DIM
    id = "bench"

    def __init__(self) -> None:
        self.spent = 0

    def covers(self, text: str) -> bool:
        return True

    def embed(self, texts: list[str]) -> Floats:
        begin = _clock()
        made = np.empty((len(texts), DIM), dtype=np.float32)
        for row, text in enumerate(texts):
            seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
            made[row] = np.random.default_rng(seed).standard_normal(DIM, dtype=np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        self.spent += _clock() - begin
        return made


def measure_adding(folder: Path) -> Stats | None:
    """Times of :meth:`SceneMemory.add`, one scene after another, until each is on disk; embedding is taken off."""
    embedder = _TimedEmbedder()
    taken: list[int] = []
    with SceneMemory.open(folder, embedder) as memory:
        for i in range(_SCENES):
            scene = Scene(
                (("narrator", f"traveller {i}"), ("other", "the one who waits")),
                f"staying {i} vs leaving {i + 1}",
                ("wanderer",),
                f"the road number {i} that was never taken",
                f"On day {i} the road bent towards house {i * 7919 % 1000}, and nobody was there to open.\nWait.",
            )
            before = embedder.spent
            begin = _clock()
            memory.add(scene, text=f"What happened on day {i}, at house {i * 7919 % 1000}?", session=f"s{i // 20}")
            took = _clock() - begin - (embedder.spent - before)
            if i >= _WARM:
                taken.append(took)
    return stats([taken])


def measure_scoring() -> Stats | None:
    """Times of scoring a thousand candidates by all seven parts."""
    random = np.random.default_rng(0)

    def vectors() -> Floats:
        return random.standard_normal((_CANDIDATES, DIM), dtype=np.float32)

    query = ResonanceQuery(vectors()[0], vectors()[0], vectors()[0], np.array([0b10110], dtype=np.uint64))
    candidates = Candidates(
        age=random.uniform(0, 100 * _DAY, _CANDIDATES),
        strength=random.uniform(0, 3, _CANDIDATES).astype(np.float32),
        meaning=vectors(),
        words=random.uniform(0, 1, _CANDIDATES).astype(np.float32),
        tension=vectors(),
        centre=vectors(),
        archetypes=random.integers(0, 1 << 20, (_CANDIDATES, 1)).astype(np.uint64),
    )
    taken = []
    for _ in range(_ROUNDS):
        begin = _clock()
        resonate(query, candidates, half_life=30 * _DAY)
        taken.append(_clock() - begin)
    return stats([taken])
