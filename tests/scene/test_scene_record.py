"""Scenes in YAML, JSON and Python: the same record in every form, and every problem of a bad one at once."""

from __future__ import annotations

import json
import random
import string
from typing import Any

import pytest
import yaml

from ltm_edge.errors import SchemaError
from ltm_edge.scene.record import MAX_RESPONSE_CHARS, Scene

# The format's first sample as its source shows it, in Russian: one-space indents, the response's lines at their key's
# own column (the site that it was copied from collapses indentation).
SOURCE_FLAT = """\
scene:
 actors:
 - you: "архитектор"
 - inner_voice: "тревога"
 tension: "уверенность vs усталость"
 archetype: "инициатор, пилигрим"
 resonance_center: "воля продолжать"
 response: |
 Ты не знаешь — это честно. Но сцена уже началась. Остановиться — значит забыть, зачем начал.
 Вопрос не в результате. А в том, готов ли ты быть существом, несущим смысл туда, где пока только пустота.
"""

# The same with the response indented as YAML wants it.
SOURCE_INDENTED = SOURCE_FLAT.replace("\n Ты", "\n  Ты").replace("\n Вопрос", "\n  Вопрос")

SOURCE_SCENE = Scene(
    actors=(("you", "архитектор"), ("inner_voice", "тревога")),
    tension="уверенность vs усталость",
    archetype=("инициатор", "пилигрим"),
    resonance_center="воля продолжать",
    response=(
        "Ты не знаешь — это честно. Но сцена уже началась. Остановиться — значит забыть, зачем начал.\n"
        "Вопрос не в результате. А в том, готов ли ты быть существом, несущим смысл туда, где пока только пустота."
    ),
)

ENGLISH = """\
scene:
  actors:
    - you: "architect"
    - inner_voice: "anxiety"
  tension: "certainty vs fatigue"
  archetype: "initiator, pilgrim"
  resonance_center: "the will to continue"
  self_commentary: "I answered the fear, not the question."
  response: |
    You do not know, and that is honest.

        code()
"""


@pytest.mark.parametrize("text", [SOURCE_FLAT, SOURCE_INDENTED], ids=["flat", "indented"])
def test_the_sources_examples_load(text: str) -> None:
    scene = Scene.from_yaml(text)
    assert scene == SOURCE_SCENE
    assert scene.poles == ("уверенность", "усталость")
    assert Scene.from_yaml(text.encode()) == scene
    assert Scene.from_yaml(text.replace("\n", "\r\n")) == scene


def test_written_as_the_format_shows() -> None:
    scene = Scene.from_yaml(ENGLISH)
    assert scene.to_yaml() == ENGLISH
    assert scene.to_yaml(["response", "actors"]).startswith("scene:\n  response: |\n    You do not know")
    assert Scene.from_yaml(scene.to_yaml(["response", "actors"])) == scene
    assert Scene.from_dict(scene.to_dict()) == scene
    assert Scene.from_dict(json.loads(scene.to_json())) == scene
    with pytest.raises(ValueError, match="mood"):
        scene.to_yaml(["mood"])


def test_flat_blocks_end_at_the_next_field() -> None:
    text = (
        SOURCE_FLAT.replace(" response: |", " response: |-").replace(' resonance_center: "воля продолжать"\n', "")
        + ' resonance_center: "воля продолжать"\n'
    )
    assert Scene.from_yaml(text) == SOURCE_SCENE


ODD_TEXTS = [
    'say "hi"', "back\\slash", "a: b # c", "- x", "'", "{", "\u2028", "\u2029", "\x85", "\ufeff",
    "\u202e x", "\u00a0", "漢字、かな", "🚀👩\u200d🚀", "\ue000", "\U0010ffff", "yes", "null", "1e5", "%YAML", "---",
    "*a", "&a", "!a",
    "trailing ", " leading", "\u200b", "\u0301",
]  # fmt: skip


def _random_text(rng: random.Random, *, lines: bool) -> str:
    alphabet = string.printable[:95] + "абвёЯ漢🚀\u00a0\u2028\ufeff\ue000\u202e" + ("\n\n\n\t  " if lines else "")
    while True:
        text = "".join(rng.choices(alphabet, k=rng.randint(1, 40))).rstrip("\n")
        if text.strip():
            return text


def test_any_scene_survives_every_form() -> None:
    rng = random.Random(3)
    for i in range(1200):
        odd = ODD_TEXTS[i % len(ODD_TEXTS)]
        line = odd if odd.strip() and rng.random() < 0.4 else _random_text(rng, lines=False)
        scene = Scene(
            actors=tuple(
                (rng.choice(["you", "no", "a b", "ё", "Ы", "1", "x:"]), line) for _ in range(rng.randint(1, 3))
            ),
            tension=line,
            archetype=("инициатор", "a'b"),
            resonance_center=_random_text(rng, lines=False),
            response=_random_text(rng, lines=True),
            self_commentary=rng.choice([None, line]),
        )
        assert Scene.from_dict(scene.to_dict()) == _cleaned(scene)
        text = scene.to_yaml()
        assert Scene.from_yaml(text) == _cleaned(scene), text
        assert Scene.from_dict(yaml.safe_load(text)) == _cleaned(scene)
        assert Scene.from_dict(json.loads(scene.to_json())) == _cleaned(scene)


def _cleaned(scene: Scene) -> Scene:
    """What reading normalises: every kind of line break in texts that have lines."""

    def lines(text: str | None) -> str | None:
        return (
            text
            if text is None
            else text.replace("\u2028", "\n").replace("\u2029", "\n").replace("\x85", "\n").rstrip("\n")
        )

    from dataclasses import replace

    return replace(scene, response=lines(scene.response) or "", self_commentary=lines(scene.self_commentary))


BASE: dict[str, Any] = {
    "actors": [{"you": "x"}], "tension": "a vs b", "archetype": "fool", "resonance_center": "c", "response": "r",
}  # fmt: skip

BAD: list[tuple[dict[str, Any], str]] = [
    ({"actors": []}, "actors: 0 entries; from 1 to 16"),
    ({"actors": [{"a": "b"}] * 17}, "actors: 17 entries"),
    ({"actors": {"you": "x"}}, "actors: expected a list"),
    ({"actors": [{"a": "x", "b": "y"}]}, "actors[0]: expected one"),
    ({"actors": ["you"]}, "actors[0]: expected one"),
    ({"actors": [{"you": 5}]}, "actors[0].you: found 5; expected text, so put it in quotes"),
    ({"actors": [{True: "x"}]}, "actors[0]: the role: found True"),
    ({"tension": None}, "tension: found None"),
    ({"tension": ["a", "b"]}, "tension: found a list"),
    ({"tension": "  "}, "tension: empty"),
    ({"tension": "a\nb"}, "tension: has a line break"),
    ({"tension": "x" * 4001}, "tension: 4001 characters; at most 4000"),
    ({"archetype": ", ,"}, "archetype: empty"),
    ({"archetype": ["a,b"]}, "archetype[0]: a name has no comma"),
    ({"archetype": 1}, "archetype: expected names"),
    ({"archetype": "a,b,c,d,e,f,g,h,i"}, "archetype: 9 names; at most 8"),
    ({"response": "x" * (MAX_RESPONSE_CHARS + 1)}, "response: 100001 characters"),
    ({"response": "\x00"}, "response: the character U+0000 isn't text"),
    ({"response": "a\ud800"}, "response: the character U+D800 isn't text"),
    ({"response": "\n\n"}, "response: empty"),
    ({"respons": "r"}, "respons: unknown key; did you mean 'response'?"),
    ({"self_commentary": 1}, "self_commentary: found 1"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=range(len(BAD)))
def test_bad_scenes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Scene.from_dict(BASE | change, "s.json")
    assert str(caught.value.problems[0]).startswith(f"s.json: {message}")


def test_all_problems_at_once_with_lines() -> None:
    text = "scene:\n  actors:\n    - you: 1\n  tension: no\n  archetype: x\n  centre: y\n  response: |\n    ok\n"
    with pytest.raises(SchemaError) as caught:
        Scene.from_yaml(text, "s.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "s.yaml:1:1: scene.resonance_center: missing; it is required",
        "s.yaml:3:7: scene.actors[0].you: found 1; expected text, so put it in quotes",
        "s.yaml:6:3: scene.centre: unknown key; known are actors, tension, archetype, resonance_center, "
        "self_commentary, response",
    ]


@pytest.mark.parametrize("text", ["", "scene:", "[]", "scene: 5", "a: b", "x", "scene: {}\nmore: 1\n", "\x00", "a: *b"])
def test_not_a_scene(text: str) -> None:
    with pytest.raises(SchemaError):
        Scene.from_yaml(text)


def test_random_bytes_raise_nothing_else() -> None:
    rng = random.Random(11)
    for _ in range(400):
        raw = bytearray(ENGLISH.encode())
        for _ in range(rng.randint(1, 12)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        try:
            Scene.from_yaml(bytes(raw))
        except SchemaError as error:
            assert error.problems
