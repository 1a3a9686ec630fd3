"""The consilium's parts: when it is held, who takes part, how far drafts are apart, which one wins."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from ltm_edge.errors import EngineError
from ltm_edge.loop.consilium import Council, convened, disagreements, seated, wills
from ltm_edge.loop.self_loop import JudgedDraft
from ltm_edge.schemas.overlay import Consilium
from tests.loop.drafts import draft, judged
from tests.memory.hashed import HashedEmbedder

EMBED = HashedEmbedder(256).embed


@pytest.mark.parametrize(
    ("enabled", "entropy", "asked", "why"),
    [
        ("auto", 0.85, "auto", "undecided: entropy 0.85 of 0.85"),
        ("auto", 0.84, "auto", ""),
        ("auto", 1.0, "off", ""),
        ("auto", 0.0, "on", "asked for"),
        ("auto", None, "auto", ""),
        ("always", 0.0, "auto", "always, by the overlay"),
        ("always", 0.0, "off", ""),
        ("always", None, "auto", ""),
        ("never", 1.0, "auto", ""),
        ("never", 1.0, "on", "asked for"),
        ("never", None, "on", "asked for"),
    ],
)
def test_when_a_consilium_is_held(enabled: str, entropy: float | None, asked: str, why: str) -> None:
    assert convened(Consilium(enabled=enabled), entropy, asked) == why  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("weights", "most", "names"),
    [
        ({"a": 0.1, "b": 0.6, "c": 0.3}, 2, ["b", "c"]),
        ({"a": 0.1, "b": 0.6, "c": 0.3}, 9, ["b", "c", "a"]),
        ({"b": 0.25, "a": 0.25, "d": 0.25, "c": 0.25}, 3, ["b", "a", "d"]),  # of equals: the field's order
        ({}, 4, []),
    ],
)
def test_who_takes_part(weights: dict[str, float], most: int, names: list[str]) -> None:
    assert seated(weights, most) == names


def test_disagreement_is_the_distance_to_the_draft_most_like_it() -> None:
    one, two, three = draft("salt water tide"), draft("salt water wind"), draft("bread oven flour")
    near, also, far = disagreements([one, two, three], EMBED)
    vectors = EMBED([one.scene.response, two.scene.response, three.scene.response])  # type: ignore[union-attr]
    assert near == also == pytest.approx(1.0 - float(vectors[0] @ vectors[1]), abs=1e-6)
    assert far == pytest.approx(1.0 - float(max(vectors[2] @ vectors[0], vectors[2] @ vectors[1])), abs=1e-6)
    assert near < far <= 1.0
    assert disagreements([one, one], EMBED) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_drafts_that_are_not_complete_are_left_out_of_it() -> None:
    broken = draft(stop="length")
    near, nothing, also = disagreements([draft("salt water"), broken, draft("salt bread")], EMBED)
    assert nothing is None and near == also and near is not None
    assert disagreements([draft("salt water"), broken], EMBED) == [None, None]  # nothing to compare it to
    assert wills([broken, draft(centre="salt water")], EMBED(["salt water"])[0], EMBED) == pytest.approx([0.0, 1.0])


def test_without_an_embedder_nothing_is_measured() -> None:
    drafts = [draft("salt"), draft("bread")]
    assert disagreements(drafts, None) == [None, None]
    assert wills(drafts, EMBED(["salt"])[0], None) == [0.0, 0.0]
    assert wills(drafts, None, EMBED) == [0.0, 0.0]
    assert wills(drafts, np.zeros(256, dtype=np.float32), EMBED) == [0.0, 0.0]


def _raises(texts: Sequence[str]) -> np.ndarray:
    raise EngineError("out of memory")


def _nan(texts: Sequence[str]) -> np.ndarray:
    return np.full((len(texts), 256), np.nan, dtype=np.float32)


@pytest.mark.parametrize("embed", [_raises, _nan])
def test_an_embedder_that_fails_measures_nothing(embed: object) -> None:
    """The drafts are there: a number that is missing must not cost them."""
    drafts = [draft("salt"), draft("bread")]
    assert disagreements(drafts, embed) == [None, None]  # type: ignore[arg-type]
    assert wills(drafts, EMBED(["salt"])[0], embed) == [0.0, 0.0]  # type: ignore[arg-type]


def test_the_length_of_a_will_weighs_nothing() -> None:
    will = EMBED(["salt water"])[0]
    drafts = [draft(centre="salt water"), draft(centre="salt bread")]
    assert wills(drafts, 2 * will, EMBED) == pytest.approx(wills(drafts, will, EMBED)) != [0.0, 0.0]


def test_a_will_of_another_space_weighs_nothing() -> None:
    assert wills([draft("salt"), draft("bread")], np.ones(3, dtype=np.float32), EMBED) == [0.0, 0.0]


def council(drafts: Sequence[JudgedDraft], found: Sequence[float]) -> Council:
    return Council("asked for", tuple(drafts), tuple(found), (None,) * len(drafts))


def seat(channel: str, score: float, passed: bool = True, *, stop: str = "eog") -> JudgedDraft:
    return judged(draft(channel, channel=channel, stop=stop), score, passed)


@pytest.mark.parametrize(
    ("drafts", "found", "order"),
    [
        ([seat("a", 0.5), seat("b", 0.9)], [0, 0], [1, 0]),
        ([seat("a", 0.5), seat("b", 0.5), seat("c", 0.5)], [0, 0, 0], [0, 1, 2]),  # of equals: the stronger channel
        ([seat("a", 0.5), seat("b", 0.5)], [0.1, 0.4], [1, 0]),  # the will decides
        ([seat("a", 0.6), seat("b", 0.5)], [0.0, 0.3], [0, 1]),  # 0.48 against 0.46: it has a fifth
        ([seat("a", 0.6), seat("b", 0.5)], [0.0, 0.5], [1, 0]),  # 0.48 against 0.50
        ([seat("a", 0.5), seat("b", 0.5)], [-0.9, 0.0], [0, 1]),  # against the will is no worse than past it
        ([seat("a", 0.9, False), seat("b", 0.2)], [1, 0], [1, 0]),  # nobody against it comes first
        ([seat("a", 0.9, stop="length"), seat("b", 0.1, False)], [1, 0], [1, 0]),  # a whole document before that
        ([seat("a", 0.9, stop="cancelled"), seat("b", 0.9, stop="cancelled")], [0, 0], [0, 1]),
    ],
)
def test_ranking(drafts: list[JudgedDraft], found: list[float], order: list[int]) -> None:
    ranked = council(drafts, found)
    assert ranked.order == order and ranked.best is drafts[order[0]]


def test_the_trace_shows_every_draft_and_is_json() -> None:
    ranked = Council("asked for", (seat("a", 0.5), seat("b", 0.9)), (0.0, 0.25), (None, 0.125))
    trace = json.loads(json.dumps(ranked.to_trace(), allow_nan=False))
    assert trace["why"] == "asked for" and trace["chosen"] == "b"
    first, second = trace["drafts"]
    assert (first["channel"], first["score"], first["apart"]) == ("a", 0.5, None)
    assert (second["channel"], second["will"], second["apart"]) == ("b", 0.25, 0.125)
    assert second["document"] == ranked.best.draft.document and second["verdicts"][0]["critic"] == "obstructio"


def test_the_order_of_the_drafts_changes_only_what_is_equal() -> None:
    drafts = [draft(text) for text in ("salt water tide", "salt water wind", "bread oven flour")]
    there, back = disagreements(drafts, EMBED), disagreements(drafts[::-1], EMBED)
    assert there == pytest.approx(back[::-1], abs=1e-6)
