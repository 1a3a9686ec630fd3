"""The parts of resonance by their formulas, and diversification."""

from __future__ import annotations

import numpy as np
import pytest

from ltm_edge.errors import InputError
from ltm_edge.memory.resonance import Candidates, ResonanceQuery, ResonanceWeights, diversify, resonate

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
    np.testing.assert_allclose(scores, parts @ np.array([0.4, 0.15, 0.1, 0.1, 0.1, 0.1, 0.05]), atol=1e-6)


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
