"""MetaResponder: forms of a scene and of what there is of one; refusals and remarks made from verdicts."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from ltm_edge.loop.critics.panel import Judged
from ltm_edge.loop.critics.verdict import Verdict
from ltm_edge.loop.respond import MetaResponder, refusal_scene, remark
from ltm_edge.loop.self_loop import JudgedDraft, LoopResult
from ltm_edge.overlay_set import load_overlay
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.prompts import LanguagePrompts, RefusalWords, RemarkWords
from tests.loop.drafts import draft, scene, verdict

PROMPTS = load_overlay().prompts
TOLD = scene("Rest first.\n\nThen go on.")

# Objections, what is missing and questions by signal, which the packaged phrases may not have.
WORDS = LanguagePrompts(
    "test",
    "system",
    "turn",
    "language",
    "known {items}",
    refusal=RefusalWords(
        "No.",
        {"obstructio": "It went past it.", "evasion": "It went round it."},
        {"obstructio": "What do you want?", "poles": "What of the other side?"},
    ),
    remark=RemarkWords(
        {"obstructio": "past the question", "recursia": "in circles", "poles": "one side only", "echo": "in circles"},
        "Again: {items}.",
        "Still: {items}.",
        "It stands.",
    ),
)


def respond(told: Scene | None, document: str, form: str, lang: str = "en") -> str:
    return MetaResponder().respond(told, document, form, lang)


@pytest.mark.parametrize("form", ["text", "refusal", "auto"])
def test_text_is_the_response(form: str) -> None:
    assert respond(TOLD, TOLD.to_yaml(), form) == "Rest first.\n\nThen go on."


def test_yaml_is_what_the_model_wrote_to_the_byte() -> None:
    document = TOLD.to_yaml().replace("- you", "-  you") + "\n"
    assert respond(TOLD, document, "yaml") == document


def test_json_and_image() -> None:
    assert json.loads(respond(TOLD, TOLD.to_yaml(), "json"))["scene"]["tension"] == "work vs rest"
    for lang in ("en", "ru"):
        assert respond(TOLD, TOLD.to_yaml(), "image", lang).lstrip().startswith("<svg")


def test_an_unknown_form_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="unknown form 'poem'"):
        respond(TOLD, TOLD.to_yaml(), "poem")


@pytest.mark.parametrize("form", ["text", "yaml", "json", "image", "refusal"])
@pytest.mark.parametrize("end", [0, 1, 20, 60, 110, None])
def test_of_what_was_cut_off_there_is_what_there_is(form: str, end: int | None) -> None:
    document = TOLD.to_yaml()[:end]
    found = respond(None, document, form)
    if form in ("yaml", "json"):
        assert found == document
    else:
        assert "Rest first.\n\nThen go on.".startswith(found.rstrip("\n"))
        assert bool(found) == ("response: |\n    R" in document)


@pytest.mark.parametrize("lang", ["en", "ru"])
@pytest.mark.parametrize("critic", ["insight_seeker", "obstructio", "recursia"])
def test_a_refusal_says_what_is_missing_and_asks_one_question(lang: str, critic: str) -> None:
    words = PROMPTS.of(lang)
    refused = refusal_scene(TOLD, verdict(critic, 0.05), words)
    assert refused.response.startswith(words.refusal.opening)
    assert words.refusal.missing[critic] in refused.response
    assert refused.response.endswith(words.refusal.questions[critic]) and refused.response.count("?") == 1
    # The rest of the scene stays as it was drafted, and it is a scene like any other.
    assert (refused.actors, refused.tension, refused.resonance_center) == (TOLD.actors, TOLD.tension, "an ordinary day")
    document = refused.to_yaml()
    assert Scene.from_yaml(document) == refused
    assert yaml.safe_load(document)["scene"]["response"].strip() == refused.response


def test_a_refusal_takes_the_words_of_the_weakest_signal_where_there_are_any() -> None:
    def said(weakest: str, critic: str = "obstructio") -> str:
        return refusal_scene(TOLD, verdict(critic, 0.0, weakest=weakest), WORDS).response

    assert said("evasion") == "No. It went round it. What do you want?"
    assert said("poles") == "No. It went past it. What of the other side?"
    assert said("") == said("unheard_of") == "No. It went past it. What do you want?"
    assert said("", "somebody_elses") == "No."  # nothing is made up for a critic that has no words


def test_a_refusal_drops_the_commentary_of_the_draft() -> None:
    commented = Scene(TOLD.actors, TOLD.tension, TOLD.archetype, TOLD.resonance_center, TOLD.response, "I answered it.")
    assert refusal_scene(commented, verdict("obstructio", 0.0), WORDS).self_commentary is None


def loop(*drafts: list[Verdict], best: int = 0, why: str = "passes", whole: bool = True) -> LoopResult:
    tried: list[Any] = []
    for number, verdicts in enumerate(drafts):
        one = draft(kind="revision" if number else "draft", stop="eog" if whole else "length")
        tried.append(JudgedDraft(one, Judged(tuple(verdicts), 0.5, all(item.passed for item in verdicts))))
    return LoopResult(tried[best], tuple(tried), why)


GOOD = [verdict("insight_seeker", 0.9), verdict("obstructio", 0.9)]
PAST = [verdict("insight_seeker", 0.9), verdict("obstructio", 0.1)]


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        (loop(GOOD), "auto", ""),
        (loop(GOOD), "always", "It stands."),
        (loop(GOOD), "never", ""),
        (loop(PAST, GOOD, best=1), "auto", "Again: past the question."),
        (loop(PAST, GOOD, best=1), "always", "Again: past the question."),
        (loop(PAST, GOOD, best=1), "never", ""),
        (loop(PAST, PAST, best=0), "auto", "Still: past the question."),
        (loop(PAST), "auto", "I found that past the question."),  # no revision was tried
        (loop([]), "always", ""),  # nobody judged it
        (loop([verdict("obstructio", 0.1)], whole=False), "always", ""),  # it is not even complete
        (loop(PAST, GOOD, best=0, why="cancelled"), "auto", ""),  # nobody knows what would have come of it
    ],
)
def test_when_a_remark_is_made(found: LoopResult, wanted: str, said: str) -> None:
    assert remark(found, WORDS, wanted) == said


def test_a_remark_names_each_objection_once_by_its_signal() -> None:
    against = [
        verdict("insight_seeker", 0.1, weakest="echo"),
        verdict("obstructio", 0.1, weakest="poles"),
        verdict("recursia", 0.1),
    ]
    assert remark(loop(against, GOOD, best=1), WORDS, "auto") == "Again: in circles, one side only."


def test_a_critic_without_words_is_named() -> None:
    assert remark(loop([verdict("house_rules", 0.1)], GOOD, best=1), WORDS, "auto") == "Again: house_rules."


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_the_packaged_remarks(lang: str) -> None:
    words = PROMPTS.of(lang)
    objection = words.remark.objections["obstructio"]
    revised, kept = remark(loop(PAST, GOOD, best=1), words, "auto"), remark(loop(PAST, PAST), words, "auto")
    assert objection in revised and objection in kept and revised != kept
    assert "{" not in revised + kept
    assert remark(loop(GOOD), words, "always") == words.remark.stood
