"""Groups of arcs: the fast way joins what the plain definition of average linkage joins."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ltm_edge.memory.consolidate import cluster_arcs

LEAST = 0.5


class Links:
    """Every arc has one member, and members may have been recalled for each other."""

    def __init__(self, recalled: dict[int, list[int]]) -> None:
        self._recalled = recalled

    def sources(self, target: int, kind: str) -> list[int]:
        return [1000 * target]

    def targets(self, source: int, kind: str) -> list[int]:
        return self._recalled.get(source, [])


def by_definition(likeness: np.ndarray) -> list[list[int]]:
    groups = [[i] for i in range(len(likeness))]
    while len(groups) > 1:
        best, a, b = max(
            (float(likeness[np.ix_(groups[a], groups[b])].mean()), -a, -b)
            for a in range(len(groups))
            for b in range(a + 1, len(groups))
        )
        if best < LEAST:
            break
        groups[-a] += groups[-b]
        del groups[-b]
    return sorted(sorted(group) for group in groups)


@pytest.mark.parametrize("seed", range(40))
def test_average_linkage(seed: int):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 14))
    arcs = [SimpleNamespace(id=i + 1) for i in range(n)]
    vectors = {}
    for arc in arcs:
        kind = rng.random()
        if kind > 0.1:  # one in ten has no vector, some are of another space
            vector = rng.standard_normal(3 if kind < 0.8 else 5)
            vectors[arc.id] = (vector / np.linalg.norm(vector)).astype(np.float32)
    recalled = {1000 * arc.id: [1000 * int(rng.integers(1, n + 1))] for arc in arcs if rng.random() < 0.2}
    likeness = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            a, b = vectors.get(i + 1), vectors.get(j + 1)
            if i != j and a is not None and b is not None and len(a) == len(b):
                likeness[i, j] = min(1.0, float(a @ b))
    for source, (target,) in recalled.items():
        i, j = source // 1000 - 1, target // 1000 - 1
        if i != j:
            likeness[i, j] = likeness[j, i] = 1.0
    found = cluster_arcs(Links(recalled), arcs, vectors, LEAST)  # type: ignore[arg-type]
    assert sorted(sorted(arc.id - 1 for arc in group) for group in found) == by_definition(likeness)
