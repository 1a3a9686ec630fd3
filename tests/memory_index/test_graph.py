"""The index as a graph: what it finds against the plain scan, through changes, files and threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ltm_edge.errors import InputError
from ltm_edge.memory.index import VectorIndex

from .index_oracle import PlainIndex

DIM = 48


def clustered(n: int, seed: int, spread: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(40, DIM))
    return (centres[random.integers(0, 40, n)] + spread * random.normal(size=(n, DIM))).astype(np.float32)


def recall(index: VectorIndex, plain: PlainIndex, queries: np.ndarray, allowed: list[int] | None = None) -> float:
    """Share of the true ten found; whatever is found carries its true cosine."""
    found = 0
    ids, scores = index.search(queries, 10, allowed=allowed)
    for query, mine, cosines in zip(queries, ids.tolist(), scores, strict=True):
        true, _ = plain.search(query, 10, allowed)
        found += len(set(mine) & set(true.tolist()))
        assert len(set(mine)) == 10 and (np.diff(cosines) <= 0).all()
        unit = query / np.linalg.norm(query)
        np.testing.assert_allclose(cosines, [plain.rows[i] @ unit for i in mine], atol=1e-5)
    return found / (10 * len(queries))


def grown(n: int = 3000) -> tuple[VectorIndex, PlainIndex]:
    index, plain = VectorIndex(DIM, exact_below=500), PlainIndex(DIM)
    for i in range(0, n, 500):
        vectors = clustered(500, i)
        index.add(np.arange(i, i + 500), vectors)
        plain.add(np.arange(i, i + 500), vectors)
    return index, plain


def test_it_finds_nearly_all_through_any_changes(tmp_path: Path):
    index, plain = grown()
    random = np.random.default_rng(1)
    queries = clustered(50, 99)
    for step in range(60):
        some = random.choice(4000, size=int(random.integers(1, 120)), replace=False)
        kind = ("add", "remove", "remove", "one", "compact", "file")[step % 6]
        if kind == "add":
            vectors = clustered(len(some), 1000 + step)
            index.add(some, vectors)
            plain.add(some, vectors)
        elif kind == "remove":
            assert index.remove(some) == plain.remove(some)
        elif kind == "one":
            for number in some[:10]:
                vector = clustered(1, 5000 + int(number))
                index.add([number], vector)
                plain.add([number], vector)
        elif kind == "compact" and step % 4 == 0:
            index.compact()
            assert index.stats.deleted == 0 and index.stats.linked == len(index)
        elif kind == "file":
            index.save(tmp_path / "index", generation=step, embedder="e")
            index = VectorIndex.load(tmp_path / "index", dim=DIM, generation=step, embedder="e", exact_below=500)
        assert len(index) == len(plain)
        if step % 5 == 0:
            assert recall(index, plain, queries) >= 0.95
    assert recall(index, plain, queries) >= 0.95
    ids, _ = index.exact(queries, 10)
    assert ids.tolist() == [plain.search(query, 10)[0].tolist() for query in queries]


@pytest.mark.parametrize("kept", [4, 2])
def test_forgetting_most_of_it_leaves_the_rest_findable(kept: int):
    index, plain = grown()
    gone = [i for i in range(3000) if i % kept]
    for i in range(0, len(gone), 100):
        index.remove(gone[i : i + 100])
    plain.remove(gone)
    assert index.stats.linked == len(plain)
    assert recall(index, plain, clustered(100, 7)) >= 0.95
    index.compact()
    assert index.stats.deleted == 0 and recall(index, plain, clustered(100, 7)) >= 0.95


def test_forgetting_a_whole_neighbourhood_leaves_its_place_searchable():
    index, plain = grown()
    queries = clustered(40, 3, spread=0.2)
    near = np.unique(index.exact(queries[:6], 150)[0])
    index.remove(near)
    plain.remove(near)
    assert recall(index, plain, queries) >= 0.95
    index.compact()
    assert recall(index, plain, queries) >= 0.95


@pytest.mark.parametrize("share", [2, 5, 20])
def test_filters_are_kept_to(share: int):
    index, plain = grown()
    allowed = list(range(0, 3200, share))
    assert recall(index, plain, clustered(40, 8), allowed) >= (0.95 if share < 8 else 1.0)
    assert (index.search(clustered(40, 8), 10, allowed=allowed)[0] % share == 0).all()


def test_more_effort_finds_more():
    index, plain = grown()
    queries = clustered(100, 9)
    true = np.stack([plain.search(query, 10)[0] for query in queries])
    found = []
    for effort in (10, 200):
        ids, _ = index.search(queries, 10, effort=effort)
        found.append(sum(len(set(a) & set(b)) for a, b in zip(ids.tolist(), true.tolist(), strict=True)))
    assert found[0] < found[1] and found[1] >= 995
    with pytest.raises(InputError):
        index.search(queries, 10, effort=0)


def test_scenes_added_one_by_one_are_found_at_once():
    index, plain = VectorIndex(DIM, exact_below=300), PlainIndex(DIM)
    vectors = clustered(900, 4)
    for i, vector in enumerate(vectors):
        index.add([i], vector[None])
        assert index.search(vector, 1)[0].tolist() == [[i]]
    plain.add(range(900), vectors)
    assert 0 < index.stats.linked <= 900
    assert recall(index, plain, clustered(50, 5)) >= 0.95


def test_equal_vectors_are_told_apart_by_id():
    index = VectorIndex(DIM, exact_below=0)
    index.add(range(2000), np.repeat(clustered(1, 0), 2000, axis=0))
    ids, scores = index.search(clustered(1, 0)[0], 10)
    assert len(set(ids[0].tolist())) == 10 and (np.diff(ids[0]) > 0).all()
    np.testing.assert_allclose(scores, 1, atol=1e-5)


def test_replacing_with_the_same_changes_nothing():
    index, _ = grown(1000)
    index.add(np.arange(500), clustered(500, 0))
    assert index.stats.deleted == 0 and index.stats.linked == len(index) == 1000


def test_threads_may_search_and_change():
    index, query = grown(1500)[0], clustered(1, 3)[0]

    def change(i: int) -> None:
        index.add(np.arange(5000 + 80 * i, 5080 + 80 * i), clustered(80, i))
        index.remove(np.arange(5000 + 80 * i, 5040 + 80 * i))

    with ThreadPoolExecutor(4) as pool:
        changes = [pool.submit(change, i) for i in range(12)]
        found = [pool.submit(index.search, query, 5) for _ in range(200)]
        for future in [*changes, *found]:
            future.result()
    assert len(index) == 1500 + 12 * 40
    for future in found:
        ids, scores = future.result()
        assert (ids >= 0).all() and (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("exact_below", [0, 10_000])
def test_what_is_bad_is_named_by_its_row(exact_below: int):
    index = VectorIndex(DIM, exact_below=exact_below)
    vectors = clustered(20, 0)
    vectors[13, 2] = np.nan
    with pytest.raises(InputError, match="row 13 "):
        index.add(range(20), vectors)
    assert len(index) == 0
    index.add(range(13), vectors[:13])
    with pytest.raises(InputError, match="query 13 "):
        index.search(vectors, 3)
