"""Orientation over the packaged field: lifting, the embedder's failures, the will, recalled scenes, routing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltm_edge.errors import EngineError, InputError, ModelError
from ltm_edge.field.state import FieldState
from ltm_edge.loop.orientation import Oriented, Orienter, Pull
from ltm_edge.overlay_set import load_overlay
from ltm_edge.scene.pvq import Pvq
from tests.memory.hashed import HashedEmbedder

PACKAGED = load_overlay()
ASK = "I want to learn to swim, but the water frightens me."
OTHER = "Compare the two laptops and count the costs."


class Failing(HashedEmbedder):
    """Fails at one of its calls: at once (``id``, ``covers``), or when it is to embed for the n-th time."""

    def __init__(self, at: str, after: int = 0) -> None:
        self._at = at
        self._after = after
        super().__init__(256)

    @property
    def id(self) -> str:
        if self._at == "id":
            raise ModelError("the demo embedder is not installed")
        return "hashed-256"

    @id.setter
    def id(self, value: str) -> None: ...

    def covers(self, text: str) -> bool:
        if self._at == "covers":
            raise ModelError("the demo embedder is not installed")
        return super().covers(text)

    def embed(self, texts: list[str]) -> Any:
        if self._at == "embed" and self.calls >= self._after:
            raise EngineError("out of memory")
        return super().embed(texts)


def orienter(embedder: Any = None, **routing: Any) -> Orienter:
    overlay = PACKAGED.overlay
    return Orienter(
        PACKAGED.field,
        PACKAGED.templates,
        PACKAGED.archetype_names(),
        PACKAGED.languages,
        replace(overlay, routing=replace(overlay.routing, **routing)),
        embedder,
    )


def turn(
    one: Orienter, text: str, state: FieldState, pull: Pull | None = None, override: Any = None, lang: str = "en"
) -> Oriented:
    return one.route(one.lift(Pvq.from_text(text), lang, state), pull, override)


def cosine(a: Any, b: Any) -> float:
    return float(np.dot(a, b))


def test_a_request_is_read_by_meaning_and_moves_the_field() -> None:
    embedder = HashedEmbedder(256)
    one = orienter(embedder)
    found = turn(one, ASK, FieldState.empty())
    assert found.lifted.reading is not None and found.lifted.reading.how == "embeddings"
    assert not found.lifted.notices and found.space == "hashed-256"
    assert cosine(found.state.meaning, embedder.embed([ASK])[0]) == pytest.approx(1.0, abs=1e-5)
    moved = turn(one, OTHER, found.state)
    assert moved.lifted.before is found.state
    assert 0.0 < cosine(moved.state.meaning, embedder.embed([OTHER])[0]) < 1.0


def test_the_same_requests_give_the_same_field() -> None:
    ends = []
    for _ in range(2):
        state = FieldState.empty()
        one = orienter(HashedEmbedder(256))
        for text in (ASK, OTHER, "And then?"):
            found = turn(one, text, state)
            state = one.settle(found, "the next step")
        ends.append((state.to_dict(), found.routing.weights))  # type: ignore[union-attr]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("at", ["id", "covers", "embed"])
def test_an_embedder_that_fails_is_said_once_and_letters_are_read_from_then_on(at: str, tmp_path: Path) -> None:
    one = replace(orienter(Failing(at)), cache=tmp_path)
    first = turn(one, ASK, one.state(None))
    assert first.lifted.reading is not None and first.lifted.reading.how == "letters"
    (said,) = first.lifted.notices
    assert said.endswith("; requests are read letter by letter until texts can be embedded again")
    assert "not installed" in said or "out of memory" in said
    assert first.routing is not None and sum(first.routing.weights.values()) == pytest.approx(1.0)
    assert one.choose(first.lifted).name in PACKAGED.templates
    assert first.state.goal == "learn to swim" and first.state.will is None and first.state.meaning is None
    settled = one.settle(first, "the water")
    assert settled.goal == "learn to swim" and 0.0 < settled.pull < first.state.pull
    second = turn(one, OTHER, settled)
    assert second.lifted.notices == () and second.lifted.reading is not None and second.lifted.reading.how == "letters"
    json.dumps(first.to_trace(settled), allow_nan=False)


def lost_after_a_turn() -> tuple[Failing, Orienter, Oriented]:
    """An embedder that works for one turn and fails from then on, what uses it, and that turn."""
    embedder = Failing("embed", after=1 << 30)
    one = orienter(embedder)
    first = turn(one, ASK, FieldState.empty())
    embedder._after = 0
    return embedder, one, first


def test_an_embedder_that_fails_later_leaves_the_field_where_it_was() -> None:
    _, one, first = lost_after_a_turn()
    second = turn(one, OTHER, first.state)
    assert second.lifted.reading is not None and second.lifted.reading.how == "letters"
    assert len(second.lifted.notices) == 1
    assert np.array_equal(second.state.meaning, first.state.meaning)
    assert second.state.goal == "learn to swim" and second.state.pull == first.state.pull
    assert turn(one, "And then?", second.state).lifted.notices == ()


def test_an_embedder_that_works_again_is_said_once_and_finds_the_field_as_it_was() -> None:
    embedder, one, first = lost_after_a_turn()
    lost = turn(one, OTHER, first.state)
    trace = lost.to_trace(one.settle(lost, "the water"))
    assert trace["field"]["state"]["space"] == "hashed-256" and "will" in trace["field"]["state"]
    embedder._after = 1 << 30
    back = turn(one, OTHER, one.state(json.loads(json.dumps(trace))))
    assert back.lifted.notices == ("texts can be embedded again; requests are read by meaning",)
    assert back.lifted.reading is not None and back.lifted.reading.how == "embeddings"
    assert back.state.goal == "learn to swim" and cosine(back.state.will, first.state.will) == pytest.approx(
        1, abs=1e-3
    )
    assert 0.0 < cosine(back.state.meaning, first.state.meaning) < 1.0  # moved, not begun anew
    assert turn(one, "And then?", back.state).lifted.notices == ()
    embedder._after = 0
    assert len(turn(one, ASK, back.state).lifted.notices) == 1  # lost again


def test_a_field_of_an_embedder_that_can_not_be_named_now_keeps_its_name(tmp_path: Path) -> None:
    embedder = Failing("")
    one = orienter(embedder)
    first = turn(one, ASK, FieldState.empty())
    trace = first.to_trace(first.state)
    embedder._at = "id"
    state = one.state(trace)
    assert state.will is not None and turn(one, OTHER, state).space == "hashed-256"


def test_what_an_accepted_answer_cannot_be_compared_to_only_fades() -> None:
    embedder = Failing("embed", after=1 << 30)
    one = orienter(embedder)
    found = turn(one, ASK, FieldState.empty())
    embedder._after = 0
    settled = one.settle(found, "learn to swim")  # would have reached it
    assert settled.goal == "learn to swim" and settled.pull == pytest.approx(found.state.pull * PACKAGED.field.decay)


def test_an_embedder_that_gives_no_numbers_moves_nothing() -> None:
    class Nan(HashedEmbedder):
        def embed(self, texts: list[str]) -> Any:
            return np.full((len(texts), self.dim), np.nan, dtype=np.float32)

    one = orienter(Nan(256))
    found = turn(one, ASK, FieldState.empty())
    assert found.state.meaning is None and found.state.will is None and found.state.goal == "learn to swim"
    assert found.routing is not None and sum(found.routing.weights.values()) == pytest.approx(1.0)
    json.dumps(found.to_trace(one.settle(found, "x")), allow_nan=False)


def test_a_language_that_the_embedder_does_not_cover_is_read_by_letters_without_a_word() -> None:
    one = orienter(HashedEmbedder(256, latin_only=True))
    english = turn(one, ASK, FieldState.empty())
    russian = turn(one, "Хочу научиться плавать, но боюсь воды.", english.state, lang="ru")
    assert russian.lifted.reading is not None and russian.lifted.reading.how == "letters"
    assert russian.lifted.notices == () and russian.lifted.reading.vector is None
    assert np.array_equal(russian.state.meaning, english.state.meaning)
    assert russian.state.goal == "научиться плавать"
    assert turn(one, OTHER, russian.state).lifted.reading.how == "embeddings"  # type: ignore[union-attr]


def test_the_field_is_saved_in_a_trace_and_read_back_from_it() -> None:
    one = orienter(HashedEmbedder(256))
    found = turn(one, ASK, FieldState.empty())
    settled = one.settle(found, "the water")
    trace = json.loads(json.dumps(found.to_trace(settled), allow_nan=False))
    assert trace["field"]["goal"] == "learn to swim" and trace["field"]["pull"] == round(settled.pull, 3)
    back = one.state(trace)
    assert cosine(back.meaning, settled.meaning) == pytest.approx(1.0, abs=1e-3)  # kept as float16
    assert cosine(back.will, settled.will) == pytest.approx(1.0, abs=1e-3)
    assert back.goal == settled.goal and back.pull == pytest.approx(settled.pull, abs=1e-4)
    assert back.to_dict(found.space) == settled.to_dict(found.space)  # nothing is lost by saving it again


@pytest.mark.parametrize(
    "saved",
    [None, "text", 7, {}, {"field": None}, {"field": {"state": None}}, {"field": {"state": {"meaning": "%%%"}}}],
)
def test_a_trace_without_a_field_is_an_empty_field(saved: object) -> None:
    state = orienter(HashedEmbedder(256)).state(saved)
    assert state.meaning is None and state.goal is None


def test_vectors_of_another_space_are_not_taken_for_its_own() -> None:
    one, other = orienter(HashedEmbedder(256)), orienter(HashedEmbedder(256, name="other"))
    found = turn(one, ASK, FieldState.empty())
    back = other.state(found.to_trace(found.state))
    assert back.meaning is None and back.will is None
    assert back.goal == "learn to swim"  # words are words in any space
    assert turn(other, OTHER, back).lifted.reading.how == "embeddings"  # type: ignore[union-attr]


def test_a_will_is_set_fades_and_is_reached_or_replaced() -> None:
    one = orienter(HashedEmbedder(256))
    found = turn(one, ASK, FieldState.empty())
    first = found.state.pull
    assert found.state.goal == "learn to swim" and 0.0 < first <= 1.0
    pulls = []
    state = found.state
    for _ in range(3):  # nothing new is wanted
        found = turn(one, "The weather is grey today.", state)
        state = one.settle(found, "the grey weather")
        pulls.append(state.pull)
    assert state.goal == "learn to swim"
    assert pulls == pytest.approx([first * PACKAGED.field.decay**n for n in (1, 2, 3)])
    replaced = turn(one, "I want to bake bread.", state)
    assert replaced.state.goal == "bake bread" and replaced.state.pull == first
    reached = one.settle(turn(one, "Show me how.", replaced.state), "bake bread")
    assert reached.goal is None and reached.will is None and reached.pull == 0.0


def test_a_will_that_nobody_reaches_is_forgotten_at_last() -> None:
    one = orienter()
    state = turn(one, ASK, FieldState.empty()).state
    pulls = []
    while state.goal is not None and len(pulls) < 100:
        state = one.settle(turn(one, "Grey again.", state), "grey")
        pulls.append(state.pull)
    assert 5 < len(pulls) < 99 and pulls == sorted(pulls, reverse=True) and pulls[-1] == 0.0


def test_a_goal_that_is_given_has_its_weight() -> None:
    one = orienter(HashedEmbedder(256))
    pvq = Pvq("It rains.", goal="build a roof", weight=0.4)
    found = one.route(one.lift(pvq, "en", FieldState.empty()), None, None)
    assert found.state.goal == "build a roof" and found.state.pull == 0.4
    assert found.to_trace(found.state)["lift"]["goal"]["source"] == "given"


def test_recalled_scenes_pull_at_the_field_by_their_strength() -> None:
    embedder = HashedEmbedder(256)
    one = orienter(embedder)
    (scene,) = embedder.embed(["the old lighthouse keeper and his dog"])
    plain = turn(one, ASK, FieldState.empty())
    before = cosine(plain.state.meaning, scene)
    near = []
    for strength in (0.0, 0.2, 1.0):
        pulled = turn(one, ASK, FieldState.empty(), Pull(scene[None], [strength], 0.8))
        near.append(cosine(pulled.state.meaning, scene))
        assert float(np.linalg.norm(pulled.state.meaning)) == pytest.approx(1.0, abs=1e-5)
    assert near[0] == pytest.approx(before, abs=1e-6) and before < near[1] < near[2]
    # No crowd captures it: the angle that it moves is bounded.
    crowd = turn(one, ASK, FieldState.empty(), Pull(np.repeat(scene[None], 50, 0), [1.0] * 50, 0.8))
    sine = np.sqrt(1.0 - cosine(crowd.state.meaning, plain.state.meaning) ** 2)
    assert sine <= PACKAGED.field.dynamics.capture + 1e-3


def test_what_was_recalled_stirs_the_zones_behind_the_memory() -> None:
    embedder = HashedEmbedder(256)
    one = orienter(embedder)
    (scene,) = embedder.embed([ASK])  # where the field stands already: nothing moves, only the zone stirs
    calm = turn(one, ASK, FieldState.empty(), Pull(scene[None], [1.0], 0.0)).routing
    stirred = turn(one, ASK, FieldState.empty(), Pull(scene[None], [1.0], 1.0)).routing
    assert calm is not None and stirred is not None
    linked = {link.target for link in PACKAGED.field.links if link.source == "memory" and link.weight > 0}
    assert linked and all(stirred.similarity[name] > calm.similarity[name] for name in linked)


@pytest.mark.parametrize(
    "pull",
    [
        Pull(np.zeros((0, 256), dtype=np.float32), [], 0.5),
        Pull(np.full((2, 256), np.nan, dtype=np.float32), [1.0, 1.0], 0.5),
        Pull(np.ones((1, 3), dtype=np.float32), [1.0], 0.5),  # of another embedder
    ],
)
def test_what_has_no_direction_pulls_nothing(pull: Pull) -> None:
    one = orienter(HashedEmbedder(256))
    plain, pulled = turn(one, ASK, FieldState.empty()), turn(one, ASK, FieldState.empty(), pull)
    assert np.allclose(plain.state.meaning, pulled.state.meaning, atol=1e-6)


def test_weights_that_are_asked_for_are_taken_as_they_are() -> None:
    one = orienter(HashedEmbedder(256), inputs=False, heads=False)
    found = turn(one, ASK, FieldState.empty(), override={"poet": 0.7, "ironist": 0.3})
    assert found.routing is not None and found.routing.why.startswith("asked for")
    assert {name: w for name, w in found.routing.weights.items() if w > 0} == {"poet": 0.7, "ironist": 0.3}
    assert [weight for _, weight in found.directives(PACKAGED.field)] == [0.7, 0.3]
    with pytest.raises(InputError, match="no channel"):
        turn(one, ASK, FieldState.empty(), override={"pirate": 1.0})


def test_directives_are_in_the_language_of_the_request() -> None:
    one = orienter()
    for lang, text in (("ru", "Сравни варианты."), ("en", "Compare them."), ("xx", "Compare them.")):
        found = turn(one, text, FieldState.empty(), override={"poet": 1.0}, lang=lang)
        words = PACKAGED.field.channels["poet"].directive
        assert found.directives(PACKAGED.field) == [(words.get(lang, words["en"]), 1.0)]


def test_where_nothing_acts_nothing_is_routed() -> None:
    one = orienter(HashedEmbedder(256), inputs=False, heads=False)
    found = turn(one, ASK, FieldState.empty())
    assert found.routing is None and found.directives(PACKAGED.field) == []
    assert "routing" not in found.to_trace(found.state)
    assert one.sampling({"temperature": 0.5}, found) == {"temperature": 0.5}


def test_a_field_without_channels_routes_nothing() -> None:
    zones = {name: zone for name, zone in PACKAGED.field.zones.items() if name not in PACKAGED.field.channels}
    one = replace(orienter(HashedEmbedder(256)), architecture=replace(PACKAGED.field, zones=zones, links=()))
    found = turn(one, ASK, FieldState.empty())
    assert found.routing is None and found.state.goal == "learn to swim"


def test_sampling_is_mixed_by_weight() -> None:
    one = orienter()
    found = turn(one, ASK, FieldState.empty(), override={"poet": 0.5, "logician": 0.5})
    mixed = one.sampling({"temperature": 0.4, "top_p": 0.9}, found)
    own = [PACKAGED.field.channels[name].sampling.temperature for name in ("poet", "logician")]
    assert mixed == {"temperature": pytest.approx(sum(own) / 2), "top_p": 0.9}  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["?!…", "....", "a" * 100_000, "我想学游泳", "أريد أن أتعلم السباحة", "🙂🙂"])
@pytest.mark.parametrize("embedder", [None, HashedEmbedder(256)])
def test_any_text_finds_its_place(text: str, embedder: Any) -> None:
    one = orienter(embedder)
    found = turn(one, text, turn(one, ASK, FieldState.empty()).state)
    assert found.routing is not None and sum(found.routing.weights.values()) == pytest.approx(1.0)
    assert one.choose(found.lifted).name in PACKAGED.templates
    assert found.state.goal == "learn to swim"
    json.dumps(found.to_trace(one.settle(found, text)), allow_nan=False)
