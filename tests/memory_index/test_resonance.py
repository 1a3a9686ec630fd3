"""The parts of resonance by their formulas, and diversification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm_edge.errors import InputError
from ltm_edge.memory.resonance import Candidates, ResonanceQuery, ResonanceWeights, diversify, resonate

from . import resonance_oracle as oracle

AXES = np.eye(4, dtype=np.float32)
NONE = np.full(4, np.nan, dtype=np.float32)


def candidates(**parts: object) -> Candidates:
    return Candidates(**({"age": np.zeros(3), "strength": np.zeros(3, dtype=np.float32)} | parts))  # type: ignore[arg-type]


def test_every_part_follows_its_formula():
    vectors = np.stack([3 * AXES[0], -AXES[0], NONE])
    scores, parts = resonate(
        ResonanceQuery(meaning=AXES[0], tension=AXES[0], will=AXES[0], archetypes=np.array([0b0110], dtype=np.uint64)),
        candidates(
            age=np.array([0.0, 10.0, -5.0]),
            strength=np.array([0, 1, 3], dtype=np.float32),
            meaning=vectors,
            words=np.array([0.5, 2, -1], dtype=np.float32),
            tension=vectors,
            centre=vectors,
            archetypes=np.array([[0b0110], [0b0010], [0b1000]], dtype=np.uint64),
        ),
        half_life=10.0,
    )
    for column in (0, 2, 3):
        np.testing.assert_allclose(parts[:, column], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(parts[:, 1], [0.5, 1, 0])
    np.testing.assert_allclose(parts[:, 4], [1, 0.5, 0])
    np.testing.assert_allclose(parts[:, 5], [1, 0.5, 1])
    np.testing.assert_allclose(parts[:, 6], [0, 0.5, 0.75])
    np.testing.assert_allclose(scores, parts @ np.array([0.61, 0.13, 0.09, 0.04, 0.08, 0.03, 0.02]), atol=1e-6)


def test_what_the_query_lacks_is_left_out_and_what_a_scene_lacks_counts_as_nothing():
    scores, parts = resonate(
        ResonanceQuery(meaning=AXES[0]),
        candidates(meaning=np.stack([AXES[0], NONE, AXES[0]]), tension=np.stack([AXES[0]] * 3)),
        half_life=1.0,
        weights=ResonanceWeights(meaning=3, words=5, tension=5, centre=5, archetype=5, recency=1, strength=0),
    )
    assert np.isnan(parts[:, [1, 2, 3, 4]]).all()
    np.testing.assert_allclose(scores, [1, 0.25, 1])


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_bad_weights_are_refused(weight):
    with pytest.raises(InputError):
        resonate(ResonanceQuery(), candidates(), half_life=1.0, weights=ResonanceWeights(words=weight))


@pytest.mark.parametrize("half_life", [0.0, -1.0, float("nan")])
def test_bad_half_lives_are_refused(half_life):
    with pytest.raises(InputError):
        resonate(ResonanceQuery(), candidates(), half_life=half_life)


def test_diversify_passes_over_a_double():
    vectors = np.stack([AXES[0], AXES[0], AXES[1]])
    scores = np.array([1.0, 0.9, 0.5], dtype=np.float32)
    assert diversify(scores, vectors, 2, 0.5).tolist() == [0, 2]
    assert diversify(scores, vectors, 5, 1.0).tolist() == [0, 1, 2]
    assert diversify(scores, vectors, 0, 0.5).tolist() == []
    with pytest.raises(InputError):
        diversify(scores, vectors, 2, 1.5)


def some(random: np.random.Generator, n: int, dim: int) -> np.ndarray:
    vectors = random.normal(size=(n, dim)).astype(np.float32)
    vectors[random.random(n) < 0.2] = np.nan
    vectors[random.random(n) < 0.1] = 0
    return vectors


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.sampled_from([1, 3, 8, 33, 384]), st.sets(st.integers(0, 4)))
def test_scores_are_those_of_the_plain_version(seed, n, dim, present):
    random = np.random.default_rng(seed)
    one = lambda: random.normal(size=dim).astype(np.float32)  # noqa: E731
    query = ResonanceQuery(
        meaning=one() if 0 in present else None,
        tension=one() if 1 in present else None,
        will=one() if 2 in present else None,
        archetypes=random.integers(0, 16, 2).astype(np.uint64) if 3 in present else None,
    )
    given_ = Candidates(
        age=random.uniform(-10, 100, n),
        strength=random.uniform(0, 9, n).astype(np.float32),
        meaning=some(random, n, dim),
        words=random.uniform(-0.5, 1.5, n).astype(np.float32) if 4 in present else None,
        tension=some(random, n, dim),
        centre=some(random, n, dim),
        archetypes=random.integers(0, 16, (n, 2)).astype(np.uint64),
    )
    weights = ResonanceWeights(*random.uniform(0.01, 1, 7))
    found = resonate(query, given_, half_life=7.0, weights=weights)
    expected = oracle.resonate(query, given_, half_life=7.0, weights=weights)
    for ours, plain in zip(found, expected, strict=True):
        assert ours.dtype == np.float32 and ours.shape == plain.shape
        np.testing.assert_allclose(ours, plain, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(0, 50), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_the_choice_is_that_of_the_plain_version(seed, n, k, lam):
    random = np.random.default_rng(seed)
    scores, vectors = random.random(n).astype(np.float32), some(random, n, 16)
    vectors[np.isnan(vectors)] = 0
    assert diversify(scores, vectors, k, lam).tolist() == oracle.diversify(scores, vectors, k, lam).tolist()


def test_a_candidate_without_a_vector_is_like_nothing_else():
    scores = np.array([1.0, 0.9, 0.8], dtype=np.float32)
    assert diversify(scores, np.stack([AXES[0], AXES[0], NONE]), 3, 0.5).tolist() == [0, 2, 1]


@pytest.mark.parametrize("part", ["meaning", "words", "archetypes", "strength"])
def test_shapes_that_do_not_fit_are_refused(part):
    wrong = {
        "meaning": np.zeros((2, 4), dtype=np.float32),
        "words": np.zeros(2, dtype=np.float32),
        "archetypes": np.zeros((3, 2), dtype=np.uint64),
        "strength": np.zeros(4, dtype=np.float32),
    }
    query = ResonanceQuery(meaning=AXES[0], archetypes=np.array([1], dtype=np.uint64))
    with pytest.raises(InputError):
        resonate(query, candidates(**{part: wrong[part]}), half_life=1.0)
