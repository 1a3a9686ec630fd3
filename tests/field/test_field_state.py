"""FieldState and gravity: by properties, against slow oracles, and with every kind of bad number."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ltm_edge.field.gravity import pulled
from ltm_edge.field.state import FieldState
from ltm_edge.field.vectors import unit
from ltm_edge.schemas.field import Dynamics

DIM = 6
RATES = Dynamics()
ANY = st.floats(width=32, allow_nan=True, allow_infinity=True)
VECTORS = arrays(np.float32, DIM, elements=ANY)
GOOD = VECTORS.filter(lambda v: unit(v) is not None)
CROWDS = st.integers(0, 8).flatmap(
    lambda n: st.tuples(arrays(np.float32, (n, DIM), elements=ANY), arrays(np.float64, n))
)


def length(vector: Any) -> float:
    return float(np.linalg.norm(np.asarray(vector, dtype=np.float64)))


def angle(a: Any, b: Any) -> float:
    return math.acos(min(1.0, max(-1.0, float(np.dot(np.float64(a), np.float64(b))))))


@given(VECTORS)
def test_unit_has_length_1_or_is_none(vector: Any) -> None:
    one = unit(vector)
    if one is None:
        assert not np.isfinite(vector).all() or not vector.any()
    else:
        assert one.dtype == np.float32 and abs(length(one) - 1.0) < 1e-5


@pytest.mark.parametrize("bad", [[], [[1.0]], 3.0, [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_what_is_no_direction(bad: Any) -> None:
    assert unit(bad) is None


@given(st.lists(VECTORS, max_size=6), st.floats(0, 1))
def test_moving_never_leaves_the_sphere(path: list[Any], rate: float) -> None:
    state = FieldState()
    for vector in path:
        state = state.towards(vector, rate)
        assert state.meaning is None or abs(length(state.meaning) - 1.0) < 1e-5
    assert (state.meaning is None) == all(unit(vector) is None for vector in path)


def test_meaning_is_an_exponential_average() -> None:
    first, second = np.eye(DIM, dtype=np.float32)[:2]
    state = FieldState().towards(first, 0.25)
    assert np.array_equal(state.meaning, first)
    moved = state.towards(second, 0.25).meaning
    assert np.allclose(moved, np.array([0.75, 0.25, 0, 0, 0, 0]) / math.hypot(0.75, 0.25), atol=1e-6)
    assert np.allclose(state.towards(-first, 0.5).meaning, -first), "opposites that cancel leave the newer one"


def test_another_space_begins_anew() -> None:
    state = FieldState().towards(np.ones(DIM), 0.5).towards(np.ones(DIM + 1), 0.5)
    assert state.meaning is not None and state.meaning.shape == (DIM + 1,)


@given(GOOD, CROWDS, st.floats(0, 1), st.floats(0, 1))
def test_gravity_is_bounded_and_finite(meaning: Any, crowd: tuple[Any, Any], gravity: float, cap: float) -> None:
    here = unit(meaning)
    after = pulled(meaning, *crowd, gravity, cap)
    assert here is not None and after is not None
    assert abs(length(after) - 1.0) < 1e-5
    assert angle(here, after) <= math.asin(cap) + 2e-3


def slow_pull(meaning: Any, masses: Any, strengths: Any, gravity: float, cap: float) -> Any:
    here = np.asarray(meaning, dtype=np.float64)
    move = np.zeros_like(here)
    for x, s in zip(masses, strengths, strict=True):
        away = x / np.linalg.norm(x) - here
        d = np.linalg.norm(away)
        if d > 0:
            move += away / d * min(d, gravity * s / max(d * d, 0.01))
    if np.linalg.norm(move) > cap:
        move *= cap / np.linalg.norm(move)
    return (here + move) / np.linalg.norm(here + move)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_gravity_is_what_its_formula_says(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    meaning = unit(rng.normal(size=DIM))
    masses, strengths = rng.normal(size=(n, DIM)).astype(np.float32), rng.uniform(0.01, 5, n)
    wanted = slow_pull(meaning, masses.astype(np.float64), strengths, 0.05, 0.25)
    assert np.allclose(pulled(meaning, masses, strengths, 0.05, 0.25), wanted, atol=1e-5)
    order = rng.permutation(n)
    assert np.allclose(pulled(meaning, masses[order], strengths[order], 0.05, 0.25), wanted, atol=1e-5)


def test_stronger_and_nearer_scenes_pull_harder() -> None:
    here = unit([1, 0, 0])
    near, far = unit([1, 0.5, 0]), unit([-1, 2, 0])

    def move(mass: Any, strength: float) -> float:
        return angle(here, pulled(here, [mass], [strength], 0.02, 1.0))

    assert move(near, 1.0) < move(near, 2.0) and move(far, 1.0) < move(near, 1.0)
    assert move(here, 5.0) < 1e-3, "one that says the same pulls nowhere"
    assert angle(unit(near), pulled(here, [near], [1e300], 1.0, 1.0)) < 1e-3, "and none pulls past itself"


@pytest.mark.parametrize(
    ("masses", "strengths"),
    [([], []), (np.zeros((0, 3)), []), ([[1, 2]], [1.0]), ([[0, 1, 0]], [1.0, 2.0]), ([[0, 1, 0]], [-1.0]),
     ([[math.nan, 1, 0]], [1.0]), ([[0, 0, 0]], [1.0]), ([[0, 1, 0]], [math.inf])],
)  # fmt: skip
def test_what_pulls_nothing(masses: Any, strengths: Any) -> None:
    here = unit([1, 0, 0])
    assert np.array_equal(pulled(here, masses, strengths, 0.1, 0.5), here)
    assert pulled(None, masses, strengths, 0.1, 0.5) is None
    assert pulled(np.zeros(3), masses, strengths, 0.1, 0.5) is None


def test_the_will_fades_until_it_is_forgotten() -> None:
    state = FieldState().willed(unit([1, 0, 0]), "write a book", 1.0)
    elsewhere = unit([0, 1, 0])
    pulls = []
    while state.goal is not None:
        pulls.append(state.pull)
        state = state.reached(elsewhere, RATES, 0.7)
        assert len(pulls) < 50
    assert pulls == sorted(pulls, reverse=True) and pulls[1] == pytest.approx(0.7)
    assert state.will is None and state.pull == 0.0


def test_the_will_is_kept_reached_or_replaced() -> None:
    goal, near, far = unit([1, 0, 0]), unit([1, 0.2, 0]), unit([0.1, 1, 0])
    state = FieldState().willed(goal, "write a book", 0.8)
    assert state.reached(far, RATES, 0.9).goal == "write a book"
    assert state.reached(None, RATES, 0.9).pull == pytest.approx(0.72)
    assert state.reached(near, RATES, 0.9).goal is None
    assert state.willed(far, "swim", 0.5).goal == "swim" and state.willed(far, "swim", 0.5).pull == 0.5
    assert state.reached(near[:2], RATES, 0.9).goal == "write a book", "another space reaches nothing"
    assert FieldState().reached(near, RATES, 0.9).goal is None
    for weight in (0.0, -1.0, math.nan):
        assert FieldState().willed(goal, "write a book", weight).goal is None
    assert FieldState().willed(None, "write a book", 1.0).goal == "write a book", "in words, where nothing embeds it"


@given(st.none() | GOOD, st.none() | GOOD, st.none() | st.text(max_size=50), st.floats(0, 1))
def test_the_state_comes_back(meaning: Any, will: Any, goal: str | None, pull: float) -> None:
    state = FieldState(None if meaning is None else unit(meaning))
    if goal is not None:
        state = state.willed(will, goal, pull)
    back = FieldState.from_dict(json.loads(json.dumps(state.to_dict("e1"))), DIM, "e1")
    assert back.goal == state.goal and back.pull == pytest.approx(state.pull, abs=1e-4)
    for one, other in ((back.meaning, state.meaning), (back.will, state.will)):
        assert (one is None) == (other is None)
        assert one is None or np.allclose(one, other, atol=2e-3)


def test_a_saved_state_is_small() -> None:
    state = FieldState(unit(np.ones(384))).willed(unit(np.ones(384)), "write a book", 1.0)
    assert len(json.dumps(state.to_dict("all-MiniLM-L6-v2"))) < 2300


@pytest.mark.parametrize(
    "obj",
    [None, 3, [], {}, {"meaning": 3}, {"meaning": "@@"}, {"meaning": "AAA="}, {"meaning": "щит"}, {"meaning": ""},
     {"meaning": "AHwAfAB8AHwAfAB8"}, {"meaning": "AAAAAAAAAAAAAAAA"}, {"goal": 3}, {"goal": "x", "pull": "1"},
     {"goal": "x", "pull": 7}, {"goal": "x", "pull": math.nan}, {"goal": "x", "pull": True}, {"goal": " ", "pull": 1.0},
     {"meaning": "A" * 10_000_000}, {"will": "AAA="}],
    ids=range(19),
)  # fmt: skip
def test_what_is_damaged_is_left_out(obj: Any) -> None:
    state = FieldState.from_dict(obj, DIM, "e1")
    assert state.meaning is None and state.will is None and state.goal is None


def test_another_space_is_left_out_but_not_the_goal() -> None:
    saved = FieldState(unit(np.ones(DIM))).willed(unit(np.ones(DIM)), "swim", 1.0).to_dict("e1")
    for back in (FieldState.from_dict(saved, DIM, "e2"), FieldState.from_dict(saved, DIM + 1, "e1")):
        assert back.meaning is None and back.will is None and back.goal == "swim"
