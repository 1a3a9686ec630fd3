"""PromptComposer: a fixed spine, requests verbatim, earlier turns as they were sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from ltm_edge.bundle import load_overlay
from ltm_edge.errors import SchemaError
from ltm_edge.scene.chat_template import Message, render_chat
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.pvq import Pvq
from ltm_edge.schemas.prompts import fill, parse_prompts

from .chat_formats import BREAKOUTS, CHATML

OVERLAY = load_overlay()
MIRROR, WORKBENCH, HEARTH = (OVERLAY.templates[name] for name in ("mirror", "workbench", "hearth"))


@dataclass(frozen=True)
class Past:
    request: str
    document: str
    template: str
    lang: str
    trace: Mapping[str, object] = field(default_factory=dict)


def composer(lang: str = "en", extra: str | None = None) -> PromptComposer:
    return PromptComposer(OVERLAY.prompts, MIRROR, lang, extra, OVERLAY.templates)


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_spine(lang: str) -> None:
    spine = composer(lang).spine_messages()
    assert [m.role for m in spine] == ["system", "user", "assistant", "user", "assistant"]
    assert MIRROR.directive[lang] in spine[0].content
    assert "actors, tension, archetype, resonance_center, response" in spine[0].content
    assert "{" not in spine[0].content
    assert [m.content for m in spine[1::2]] == [e.pvq.text for e in MIRROR.examples[lang]]
    assert spine[2].content == MIRROR.examples[lang][0].scene.to_yaml()
    assert composer(lang).spine_messages() == spine


def test_system_text_of_the_user_is_appended() -> None:
    plain, extra = composer().spine_messages(), composer(extra="  Call me Ann. {fields}\n").spine_messages()
    assert extra[0].content == f"{plain[0].content}\nCall me Ann. {{fields}}"
    assert extra[1:] == plain[1:]
    assert composer(extra="  ").spine_messages() == plain


def test_a_plain_request_is_passed_verbatim() -> None:
    text = '  why?\n\n"quotes" {items} {directive} \\ scene:\n  actors:\n'
    assert composer().turn_message(Pvq(text), MIRROR, "en") == Message("user", text)


def test_another_template_or_language_stands_in_its_own_message() -> None:
    content = composer().turn_message(Pvq("hello"), WORKBENCH, "en").content
    assert content == f"Scene: workbench. {WORKBENCH.directive['en']}\n\nhello"
    content = composer().turn_message(Pvq("привет"), HEARTH, "ru").content
    assert content == f"Сцена: hearth. {HEARTH.directive['ru']} Отвечай по-русски.\n\nпривет"
    content = composer("ru").turn_message(Pvq("hello"), MIRROR, "en").content
    assert content == f"Scene: mirror. {MIRROR.directive['en']} Answer in English.\n\nhello"


def test_known_fields_come_before_the_request_in_its_language() -> None:
    pvq = Pvq(
        "text",
        scene={"tension": "one vs other", "actors": [{"you": "architect"}, {"boss": "hurry"}], "response": "x"},
        goal="decide\n now",
        archetype=("initiator", "pilgrim"),
        phase="drama",
    )
    assert composer().turn_message(pvq, MIRROR, "en").content == (
        "Known: tension: one vs other; goal: decide now; archetype: initiator, pilgrim; phase: drama; "
        "with: you: architect, boss: hurry\n\ntext"
    )
    russian = composer("ru").turn_message(pvq, MIRROR, "ru").content
    assert russian.startswith("Известно: напряжение: one vs other; цель: decide now; архетип: ")
    assert "фаза: драма" in russian


def test_a_language_without_phrases_or_examples_falls_back_to_english() -> None:
    spine = composer("de").spine_messages()
    assert spine[0].content.startswith("You are")
    assert spine[1].content == MIRROR.examples["en"][0].pvq.text


def test_history_repeats_what_was_sent() -> None:
    one = composer()
    first = Pvq("first", goal="calm")
    before = one.messages([], first, WORKBENCH, "en")
    past = Past("first", "scene: 1\n", "workbench", "en", {"request": first.to_dict()})
    after = one.messages([past], Pvq("second"), MIRROR, "en")
    assert after[: len(before)] == before
    assert after[len(before) :] == [Message("assistant", "scene: 1\n"), Message("user", "second")]


def test_a_later_prompt_begins_with_the_earlier_one_in_every_mix() -> None:
    one = composer()
    history: list[Past] = []
    earlier = ""
    for i, (name, lang) in enumerate([("mirror", "en"), ("hearth", "en"), ("mirror", "ru"), ("workbench", "ru")] * 2):
        pvq = Pvq(f"request {i}", phase="myth" if i % 2 else None)
        prompt = render_chat(one.messages(history, pvq, OVERLAY.templates[name], lang), CHATML).text
        assert prompt.startswith(earlier)
        document = f"scene:\n  response: |\n    {i}\n"
        history.append(Past(pvq.text, document, name, lang, {"request": pvq.to_dict()}))
        earlier = prompt + document


def test_history_from_elsewhere_is_taken_as_it_is() -> None:
    strange = Past("old", "scene: old\n", "gone", "en", {"request": {"text": 5, "nonsense": True}})
    empty = Past("never answered", "  \n", "mirror", "en")
    chat = composer().messages([empty, strange], Pvq("new"), MIRROR, "en")
    assert [m.content for m in chat[5:]] == ["Scene: gone.\n\nold", "scene: old\n", "new"]


def test_templates_seen_in_the_session_are_remembered() -> None:
    one = PromptComposer(OVERLAY.prompts, MIRROR, "en")
    sent = one.turn_message(Pvq("a"), WORKBENCH, "en")
    chat = one.messages([Past("a", "scene: a\n", "workbench", "en")], Pvq("b"), MIRROR, "en")
    assert chat[5] == sent


@pytest.mark.parametrize("attack", BREAKOUTS)
def test_requests_that_quote_markers_stay_in_their_message(attack: str) -> None:
    prompt = render_chat(composer().messages([], Pvq(attack), MIRROR, "en"), CHATML)
    specials = ("<|im_start|>", "<|im_end|>")
    read = "".join(piece.text for piece in prompt.pieces(specials) if piece.special)
    assert read.count("<|im_start|>") == 7
    assert attack in [piece.text for piece in prompt.segments if not piece.special]


def test_roles_alternate_after_the_system_message() -> None:
    history = [Past(f"r{i}", f"scene: {i}\n" if i != 1 else "", "mirror", "en") for i in range(4)]
    roles = [m.role for m in composer().messages(history, Pvq("x"), MIRROR, "en")]
    assert roles == ["system"] + ["user", "assistant"] * ((len(roles) - 2) // 2) + ["user"]


# -- prompts.yaml -------------------------------------------------------------------------------------------

LANGUAGE = "{name: E, system: 's {fields}', turn: t, language: l, known: 'k {items}'}"


def test_prompts_file_reports_all_problems() -> None:
    good = parse_prompts(f"prompts: {{version: 1, languages: {{en: {LANGUAGE}}}}}")
    assert good.of("ru") is good.languages["en"]
    text = (
        "prompts:\n  version: 1\n  languages:\n    en:\n      name: E\n      system: 's {mystery}'\n      turn: t\n"
        "      language: l\n      known: none\n      labels: {mood: x}\n      extra: 1\n"
    )
    with pytest.raises(SchemaError) as caught:
        parse_prompts(text, "p.yaml")
    message = str(caught.value)
    assert len(caught.value.problems) >= 4
    for part in ("{mystery}", "{items}", "mood", "extra", "p.yaml:6"):
        assert part in message, message


@pytest.mark.parametrize("version", ["2", "'1'", "null", "true"])
def test_prompts_of_another_version_are_refused(version: str) -> None:
    with pytest.raises(SchemaError, match="version"):
        parse_prompts(f"prompts: {{version: {version}, languages: {{en: {LANGUAGE}}}}}")


def test_fill_replaces_once() -> None:
    assert fill("{a} {b} {c}", a="{b}", b="x") == "{b} x {c}"
