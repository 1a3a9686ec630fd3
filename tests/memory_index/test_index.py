"""The vector index against a plain model, and its file against damage."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm_edge.errors import IndexStale, InputError
from ltm_edge.memory.index import VectorIndex

from .index_oracle import PlainIndex

DIM = 12


def rows(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def filled(n: int = 40) -> VectorIndex:
    index = VectorIndex(DIM)
    index.add(np.arange(n), rows(n))
    return index


operation = st.one_of(
    st.tuples(st.just("add"), st.lists(st.integers(0, 30), max_size=8), st.integers(0, 10**6)),
    st.tuples(st.just("remove"), st.lists(st.integers(0, 30), max_size=8), st.just(0)),
    st.tuples(st.sampled_from(["compact", "file"]), st.just([]), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(operation, max_size=25),
    st.integers(0, 12),
    st.none() | st.sets(st.integers(0, 40)),
    st.sampled_from([0, 5, 1000]),
)
def test_any_sequence_of_changes_matches_the_plain_index(operations, k, allowed, exact_below):
    index, plain = VectorIndex(DIM, exact_below=exact_below), PlainIndex(DIM)
    for name, ids, seed in operations:
        if name == "add":
            vectors = rows(len(ids), seed)
            index.add(ids, vectors)
            plain.add(ids, vectors)
        elif name == "remove":
            assert index.remove(ids) == plain.remove(ids)
        elif name == "file":
            with tempfile.TemporaryDirectory() as folder:
                index.save(f"{folder}/index", generation=1, embedder="e")
                index = VectorIndex.load(
                    f"{folder}/index", dim=DIM, generation=1, embedder="e", exact_below=exact_below
                )
        else:
            index.compact()
            assert index.stats.deleted == 0
        assert len(index) == len(plain) and all((i in index) == (i in plain.rows) for i in range(31))
    query = rows(1, 99)[0]
    want_ids, want = plain.search(query, k, None if allowed is None else sorted(allowed))
    for find in (index.search, index.exact):
        ids, scores = find(query, k, allowed=None if allowed is None else sorted(allowed))
        assert ids.shape == scores.shape == (1, k) and ids.dtype == np.int64 and scores.dtype == np.float32
        np.testing.assert_allclose(scores[0], want, atol=1e-5)
        assert ids[0].tolist() == want_ids.tolist()


def test_a_vector_finds_itself_first():
    vectors = rows(40)
    ids, scores = filled().search(vectors, 3)
    assert ids[:, 0].tolist() == list(range(40))
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_equal_vectors_come_by_id():
    index = VectorIndex(DIM)
    index.add([9, 2, 5], np.repeat(rows(1), 3, axis=0))
    assert index.search(rows(1)[0], 3)[0].tolist() == [[2, 5, 9]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "zero", "short", "flat"])
def test_bad_vectors_are_refused_and_change_nothing(bad):
    index, vectors = filled(), rows(3)
    if bad == "zero":
        vectors[1] = 0
    elif bad == "short":
        vectors = vectors[:, :-1]
    elif bad == "flat":
        vectors = vectors[0]
    else:
        vectors[1, 4] = bad
    with pytest.raises(InputError):
        index.add([100, 101, 102], vectors)
    assert len(index) == 40
    with pytest.raises(InputError):
        index.search(vectors[1] if vectors.ndim == 2 else vectors[:5], 3)


@pytest.mark.parametrize("ids", [[-1], [1.5], [[1]], [2**63]])
def test_bad_ids_are_refused(ids):
    with pytest.raises(InputError):
        VectorIndex(DIM).add(ids, rows(1))


def test_threads_may_search_while_one_adds():
    index, query = filled(), rows(1, 8)[0]
    with ThreadPoolExecutor(3) as pool:
        adding = [pool.submit(index.add, [100 + i], rows(1, i)) for i in range(60)]
        found = [pool.submit(index.search, query, 5) for _ in range(120)]
        for future in adding:
            future.result()
        for future in found:
            ids, scores = future.result()
            assert (ids >= 0).all() and (np.diff(scores) <= 0).all()
    assert len(index) == 100


def test_bad_numbers_are_refused():
    for dim in (0, -1, 65537):
        with pytest.raises(InputError):
            VectorIndex(dim)
    with pytest.raises(InputError):
        filled().search(rows(1)[0], -1)


def test_a_file_comes_back_as_it_was(tmp_path: Path):
    index, path = filled(), tmp_path / "index"
    index.remove(range(0, 40, 2))
    index.save(path, generation=7, embedder="MiniLM sha256:00")
    again = VectorIndex.load(path, dim=DIM, generation=7, embedder="MiniLM sha256:00")
    for a, b in zip(index.search(rows(5, 3), 6), again.search(rows(5, 3), 6), strict=True):
        np.testing.assert_array_equal(a, b)
    again.add([1000], rows(1, 5))
    assert again.search(rows(1, 5)[0], 1)[0].tolist() == [[1000]]
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_the_file_shrinks_and_forgets(tmp_path: Path):
    index, path = filled(), tmp_path / "index"
    index.save(path, generation=1, embedder="e")
    before = path.stat().st_size
    gone = (rows(40)[0] / np.linalg.norm(rows(40)[0].astype(np.float64))).astype(np.float32)[:2].tobytes()
    assert gone in path.read_bytes()
    index.remove(range(20))
    index.compact()
    index.save(path, generation=2, embedder="e")
    assert path.stat().st_size < 0.7 * before
    assert gone not in path.read_bytes()


@pytest.mark.parametrize("change", [{"dim": 13}, {"generation": 6}, {"embedder": "other"}])
def test_another_store_or_embedder_is_stale(tmp_path: Path, change):
    path = tmp_path / "index"
    filled().save(path, generation=7, embedder="e")
    with pytest.raises(IndexStale):
        VectorIndex.load(path, **({"dim": DIM, "generation": 7, "embedder": "e"} | change))


def test_a_missing_file_is_stale(tmp_path: Path):
    with pytest.raises(IndexStale):
        VectorIndex.load(tmp_path / "none", dim=DIM, generation=1, embedder="e")


def test_damage_is_always_noticed(tmp_path: Path):
    path = tmp_path / "index"
    filled(6).save(path, generation=7, embedder="e")
    whole = path.read_bytes()
    damaged = [whole[:size] for size in range(len(whole))] + [whole + b"\0"]
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(IndexStale):
            VectorIndex.load(path, dim=DIM, generation=7, embedder="e")
