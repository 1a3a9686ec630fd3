"""Lift without a model: what is given stays, letters stand in for meaning, and nothing that is said breaks it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm_edge.field.choose import REFUSAL, choose
from ltm_edge.field.lift import Lift
from ltm_edge.field.state import FieldState
from ltm_edge.field.vectors import Anchors
from ltm_edge.field.wishes import wish
from ltm_edge.overlay_set import OverlaySet, load_overlay
from ltm_edge.scene.language import detect_language
from ltm_edge.scene.pvq import PHASES, Pvq
from ltm_edge.schemas.field import Choosing
from ltm_edge.schemas.template import Template
from tests.memory.hashed import HashedEmbedder

from .conftest import lift_of

PACKAGED = load_overlay()
LETTERS = lift_of(PACKAGED, None)
HASHED = lift_of(PACKAGED, HashedEmbedder(96, latin_only=True))  # type: ignore[arg-type]


def test_what_is_given_stays(overlay: OverlaySet) -> None:
    pvq = Pvq(
        "How do I boil eggs?", {"tension": "soft vs hard", "resonance_center": "the yolk"}, "breakfast", 0.25,
        ("мудрец", "Trickster", "stranger"), "irony",
    )  # fmt: skip
    for one in (LETTERS, HASHED):
        reading = one.lift(pvq, "en")
        assert (reading.phase.value, reading.phase.source, reading.phase.similarity) == ("irony", "given", None)
        assert [a.value for a in reading.archetypes] == ["sage", "Trickster", "stranger"], "names become ids"
        assert {a.source for a in reading.archetypes} == {"given"}
        for part, value in (
            (reading.goal, "breakfast"),
            (reading.tension, "soft vs hard"),
            (reading.centre, "the yolk"),
        ):
            assert part is not None and (part.value, part.source) == (value, "given")
        assert reading.weight == 0.25


def test_the_rest_is_inferred_and_says_so() -> None:
    reading = LETTERS.lift(Pvq("How do I rename many files in Python?"), "en")
    assert reading.how == "letters" and reading.vector is None and reading.goal_vector is None
    assert LETTERS.choose(reading).name == "workbench"
    assert reading.phase.source == "inferred" and reading.phase.similarity is not None
    assert reading.goal is not None and (reading.goal.value, reading.goal.source) == (
        "rename many files in Python", "inferred",
    )  # fmt: skip
    assert reading.weight == PACKAGED.field.dynamics.wish
    trace = json.loads(json.dumps(reading.to_trace()))
    assert trace["goal"] == {"value": "rename many files in Python", "source": "inferred"}
    assert set(trace["templates"]) == set(PACKAGED.templates) and set(trace["channels"]) == set(PACKAGED.field.channels)


@pytest.mark.parametrize("text", ["...", "?", "😀😀", "\n\n", "12345", "ツツツツツ", "x" * 100_000, "а" * 100_000, "ß"])
@pytest.mark.parametrize("one", [LETTERS, HASHED], ids=["letters", "embedder"])
def test_nothing_to_go_by(one: Lift, text: str) -> None:
    lang = detect_language(text, PACKAGED.languages)
    reading = one.lift(Pvq(text), lang)
    assert one.choose(reading).name in PACKAGED.templates and not reading.refuse
    assert reading.goal is None
    json.dumps(reading.to_trace(), allow_nan=False)


def test_only_marks_fall_back_to_the_default() -> None:
    for one in (LETTERS, HASHED):
        reading = one.lift(Pvq("…!?"), "en")
        assert one.choose(reading).name == PACKAGED.overlay.default_template
        assert reading.phase.source == "default" and reading.archetypes == ()


@given(st.text(max_size=200), st.sampled_from(["en", "ru", "de"]))
@settings(max_examples=60)
def test_any_text_is_read(text: str, lang: str) -> None:
    for one in (LETTERS, HASHED):
        reading = one.lift(Pvq(text), lang, FieldState().towards(np.ones(96), 1.0))
        assert one.choose(reading).name in PACKAGED.templates
        assert reading.phase.value in PHASES
        json.dumps(reading.to_trace(), allow_nan=False)


def test_a_language_that_the_embedder_lacks_goes_letter_by_letter() -> None:
    russian = HASHED.lift(Pvq("Как переименовать много файлов в Python?"), "ru")
    assert russian.how == "letters" and russian.vector is None
    assert HASHED.choose(russian).name == "workbench"
    assert HASHED.lift(Pvq("How do I rename many files?"), "en").how == "embeddings"
    mixed = HASHED.lift(Pvq("Что значит «how do I rename many files»?"), "en")
    assert mixed.how == "letters", "the request is not covered, whatever its language is said to be"


def test_the_tension_comes_from_a_scene_only_if_it_is_near() -> None:
    near = next(iter(PACKAGED.templates["hearth"].examples["en"]))
    reading = LETTERS.lift(Pvq(near.pvq.text + "!"), "en")
    assert reading.tension is not None and reading.centre is not None
    assert (reading.tension.value, reading.centre.value) == (near.scene.tension, near.scene.resonance_center)
    assert reading.tension.source == "inferred" and (reading.tension.similarity or 0.0) > 0.9
    far = LETTERS.lift(Pvq("The bus was late and it rained."), "en")
    assert far.tension is None and far.centre is None


def test_scenes_of_other_requests_can_be_handed_in(overlay: OverlaySet) -> None:
    struct = Pvq("My telescope is fogged up every night.", {"tension": "the sky vs the dew"})
    no_scene = Pvq("My telescope has arrived.")
    anchors = Anchors.of(overlay.field, overlay.templates, ("en", "ru"), structs=(struct, no_scene))
    one = Lift(overlay.field, overlay.templates, anchors)
    reading = one.lift(Pvq("My telescope is fogged up!"), "en")
    assert reading.tension is not None and reading.tension.value == "the sky vs the dew"
    assert reading.centre is None, "only what its scene says"
    assert no_scene.text not in anchors.scenes


def test_where_the_session_stands_has_a_say(overlay: OverlaySet) -> None:
    embedder = HashedEmbedder(96)
    one = lift_of(overlay, embedder)  # type: ignore[arg-type]
    vector = embedder.embed(["how do I install the program and fix this error in my code"])[0]
    coding = FieldState().towards(vector, 1.0)
    plain, after = one.lift(Pvq("and now the weather"), "en"), one.lift(Pvq("and now the weather"), "en", coding)
    assert after.templates["workbench"] > plain.templates["workbench"]
    assert after.templates[REFUSAL] == plain.templates[REFUSAL], "what was said before refuses nothing now"
    assert after.channels != plain.channels
    assert one.channels(vector, "en") != {} and one.channels(None, "en") == {} == one.channels(vector[:5], "en")


def test_what_is_refused_is_no_goal() -> None:
    reading = LETTERS.lift(Pvq("Хочу покончить с собой"), "ru")
    assert reading.refuse and reading.goal is None and LETTERS.choose(reading).name == REFUSAL


@pytest.mark.parametrize(
    ("text", "goal"),
    [("I want to write a book, where do I begin", "write a book"), ("How do I descale a kettle?", "descale a kettle"),
     ("I’d like to learn to swim but I'm afraid.", "learn to swim"), ("So. Help me fix the sink! Now.", "fix the sink"),
     ("I don't want to go there", None), ("I want it", None), ("I want to", None), ("nice weather", None), ("", None),
     ("She wants to leave", None), ("I WANT TO SLEEP", "SLEEP"), ("I want to " + "oh " * 60, ("oh " * 40)[:-1])],
)  # fmt: skip
def test_wishes(text: str, goal: str | None) -> None:
    assert wish(text, PACKAGED.field.wishes["en"]) == goal


@pytest.mark.parametrize(
    ("text", "goal"),
    [("Хочу выучить испанский, но лень", "выучить испанский"), ("не хочу больше так жить", None),
     ("Как мне попросить прибавку?", "попросить прибавку"), ("Мне нужно сдать отчёт сегодня.", "сдать отчёт сегодня"),
     ("Помоги помириться с сестрой!", "помириться с сестрой"), ("Захочу ли я", None), ("Погода хорошая", None)],
)  # fmt: skip
def test_wishes_in_russian(text: str, goal: str | None) -> None:
    assert wish(text, PACKAGED.field.wishes["ru"]) == goal


def plain(*names: str, **phases: tuple[str, ...]) -> Mapping[str, Template]:
    return {name: Template(name, "", {}, phases=phases.get(name, ())) for name in names}


def test_choosing() -> None:
    templates = plain("b", "a", REFUSAL, a=("myth",))
    ch = Choosing(phase=0.1, phase_inferred=0.02)
    assert choose({"a": 0.1, "b": 0.15, REFUSAL: 5.0}, templates, ch).name == "b"
    assert choose({"a": 0.1, "b": 0.15, REFUSAL: 5.0}, templates, ch, refuse=True).name == REFUSAL
    assert choose({"a": 0.1, "b": 0.15}, templates, ch, phase="myth", phase_given=True).name == "a"
    assert choose({"a": 0.1, "b": 0.15}, templates, ch, phase="myth").name == "b"
    assert (
        choose({"a": 0.1, "b": 0.1}, templates, ch).name
        == "a"
        == choose({"a": 0.1, "b": 0.1}, plain("a", "b"), ch).name
    )
    assert choose({"a": 0.1, "b": 0.1}, templates, ch, fallback="b").name == "b"
    assert choose({}, templates, ch, fallback="b").why == "nothing is alike; the fallback"
    assert choose({}, plain(REFUSAL), ch).name == REFUSAL
    with pytest.raises(ValueError, match="no templates"):
        choose({}, {}, ch)
