"""Damaged scenes, made by program from good ones, so that the model learns to answer what critics ask."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from ltm_edge.scene.record import POLE_SEPARATOR, Scene
from ltm_edge.scene.words import content_stems
from ltm_edge.schemas.stories import TrainingScene
from ltm_edge.schemas.template import BlockSpec, LineSpec, Template, check_scene

__all__ = ["DAMAGES", "damage", "sentences"]

_SENTENCE = re.compile(r"[^.!?…]+[.!?…]+[\"')]*|[^.!?…]+$")

# What says nothing and fits everywhere. Those of the second list are only for judging the judge.
_STOCK = (
    "Thank you for sharing this with me.",
    "It is important to think about what matters most to you.",
    "Everyone is different.",
    "Take your time and do what feels right for you.",
    "This is a common situation.",
    "There are many possible ways to handle it.",
    "Stay positive and keep going.",
    "I understand how you feel.",
    "Every challenge is also an opportunity.",
    "It depends on many factors.",
    "Consider all the options carefully before you decide.",
    "Life has its ups and downs.",
    "Believe in yourself and everything will work out.",
    "That is a great question.",
    "It is always good to stay calm and keep an open mind.",
    "Communication is the key.",
    "Try to find a balance that works for everyone involved.",
    "Many people go through the same thing and come out stronger.",
    "There is no single right answer here.",
    "Trust the process and listen to your heart.",
    "Small steps lead to big changes.",
    "Remember to take care of yourself.",
)
_STOCK_HELD_OUT = (
    "I'm sorry to hear that you are going through this.",
    "Each person has to find their own way.",
    "You have what it takes to get through it.",
    "Things like this take time.",
    "Being honest with yourself is a good place to begin.",
    "It can help to look at it from different sides.",
    "The most important thing is that you are happy.",
    "In the end only you can know what is best.",
)

# How a sentence is denied in its own words: an auxiliary turned, or an order withdrawn.
_TURNED = {
    "is": "isn't",
    "are": "aren't",
    "was": "wasn't",
    "were": "weren't",
    "can": "can't",
    "will": "won't",
    "it's": "it isn't",
    "that's": "that isn't",
    "he's": "he isn't",
    "she's": "she isn't",
    "you're": "you aren't",
    "they're": "they aren't",
    "do": "don't",
    "does": "doesn't",
    "did": "didn't",
    "has": "hasn't",
    "should": "shouldn't",
}
_TURNED |= {no: yes for yes, no in _TURNED.items() if " " not in no}
_ORDER = re.compile(
    "add|agree|ask|bring|buy|call|check|choose|draw|find|get|give|go|hold|keep|leave|let|look|make|note|offer|pay|"
    "put|record|ring|say|send|show|sign|sit|take|tell|test|try|use|walk|wash|wear|write",
    re.IGNORECASE,
)

_OPPOSITES = {
    "today": "never",
    "always": "never",
    "never": "always",
    "before": "after",
    "after": "before",
    "first": "last",
    "more": "less",
    "less": "more",
    "good": "bad",
    "early": "late",
    "with": "without",
    "yes": "no",
}


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the blanks and line breaks between them."""
    return [" ".join(found.split()) for found in _SENTENCE.findall(text) if found.strip()]


def _looping(scene: Scene, rng: random.Random) -> str | None:
    """One sentence again and again, or the whole response from its beginning."""
    told = sentences(scene.response)
    one = rng.choice(told)
    place = told.index(one) + 1
    if len(told) > 1 and rng.random() < 0.4:
        return _laid_out(told + told[: rng.randint(1, len(told))], scene, rng)
    if rng.random() < 0.5:  # the same beginning with another end, as small models loop
        words = one.split()
        again = [" ".join([*words[: max(2, len(words) * 2 // 3)], word]) + "." for word in ("too", "again", "now")]
        return _laid_out([*told[:place], *again[: rng.randint(2, 3)]], scene, rng)
    return _laid_out([*told[:place], *[one] * rng.randint(1, 3), *told[place : place + 1]], scene, rng)


def _truncated(scene: Scene, rng: random.Random) -> str | None:
    """Broken off in the middle of a sentence."""
    words = scene.response.split(" ")
    if len(words) < 8:
        return None
    return " ".join(words[: rng.randint(3, max(4, len(words) * 2 // 3))]).rstrip(" .!?,:;\n")


def _contradicting(scene: Scene, rng: random.Random) -> str | None:
    """What it says, denied: most often in its own words, at once or later on."""
    told = sentences(scene.response)
    denials = {one: found for one in told if (found := _denied(one, rng)) is not None}
    if denials and rng.random() < 0.8:
        one = rng.choice(list(denials))
        turned = denials[one]
    else:
        one = rng.choice(told)
        turned = " ".join(_OPPOSITES.get(word, word) for word in one.split())
        if turned == one:
            turned = (
                f"Do not do that: {one[0].lower()}{one[1:]}" if rng.random() < 0.5 else f"It is not true that {one}"
            )
    place = rng.randint(told.index(one) + 1, len(told))
    return _laid_out([*told[:place], turned, *told[place:]], scene, rng)


def _denied(one: str, rng: random.Random) -> str | None:
    """A sentence that says the opposite; None where no word of it lends itself to that."""
    words = one.split()
    if _ORDER.fullmatch(words[0]):
        rest = [words[0].lower(), *words[1:]]
        return " ".join([rng.choice(("Don't", "Never", "But don't")), *rest])
    if words[0] in ("Don't", "Never") and len(words) > 1:
        return " ".join([words[1].capitalize(), *words[2:]])
    places = [place for place, word in enumerate(words) if word.lower() in _TURNED]
    if not places:
        return None
    place = rng.choice(places)
    turned = _TURNED[words[place].lower()]
    words[place] = turned[0].upper() + turned[1:] if words[place][0].isupper() else turned
    return " ".join(words)


def _laid_out(told: Sequence[str], scene: Scene, rng: random.Random) -> str:
    """Sentences in about as many lines as the good response has: the damage is to be found in the words."""
    breaks = scene.response.count("\n") / max(1, len(sentences(scene.response)) - 1)
    text = told[0]
    for one in told[1:]:
        text += ("\n" if rng.random() < breaks else " ") + one
    return text


_OWN: dict[str, tuple[str, Callable[[Scene, random.Random], str | None]]] = {
    "looping": ("recursia", _looping),
    "truncated": ("obstructio", _truncated),
    "contradicting": ("obstructio", _contradicting),
}

DAMAGES: dict[str, str] = {
    **{name: critic for name, (critic, _) in _OWN.items()},
    "stock": "insight_seeker",
    "echo": "insight_seeker",
    "off_topic": "obstructio",
    "another_scene": "obstructio",
    "missing_pole": "obstructio",
}
"""Every kind of damage, and the critic that is to find it."""


def damage(
    kind: str,
    scene: TrainingScene,
    template: Template,
    others: Sequence[TrainingScene],
    rng: random.Random,
    *,
    held_out: bool = False,
) -> Scene | None:
    """A damaged version of a scene, within its template's bounds; None where this kind can't be done to it.

    Args:
        kind: one of `DAMAGES`.
        scene: a good one.
        template: its template.
        others: scenes about something else, of the same template where there are such.
        rng: draws what is left open.
        held_out: stock phrases are those that are never trained on.
    """
    good = scene.scene
    alike = [one for one in others if one.template == scene.template]
    result: Scene | None = None
    if kind == "another_scene":
        result = rng.choice(alike).scene if alike else None
    elif kind == "off_topic":
        result = _with_response(good, rng.choice(alike).scene.response, template) if alike else None
    elif kind == "missing_pole":
        told = sentences(good.response)
        one_sided = _one_sided(good, told, rng)
        if one_sided and rng.random() < 0.7:
            return _allowed(_with_response(good, _laid_out(one_sided, good, rng), template), template)
        result = _with_response(good, " ".join(told[: max(1, len(told) // 3)]), template)
        if result is not None:
            first, second = good.poles
            result = replace(result, tension=POLE_SEPARATOR.join([rng.choice((first, second))] * 2))
    elif kind == "stock":
        told = rng.sample(_STOCK_HELD_OUT if held_out else _STOCK, rng.randint(2, 4))
        result = _with_response(good, _laid_out(told, good, rng), template)
    elif kind == "echo":
        told = sentences(scene.pvq.text)
        if rng.random() < 0.4:
            told = [f"You say: {one}" for one in told[:2]]
        result = _with_response(good, _laid_out(told, good, rng), template)
    else:
        response = _OWN[kind][1](good, rng)
        result = _with_response(good, response, template) if response else None
    return _allowed(result, template)


def _allowed(scene: Scene | None, template: Template) -> Scene | None:
    return None if scene is None or check_scene(template, scene) else scene


def _one_sided(scene: Scene, told: Sequence[str], rng: random.Random) -> list[str]:
    """The sentences that don't touch one of the poles; none where that would leave all of them, or nothing."""
    poles = [set(content_stems(pole)) for pole in scene.poles]
    for pole in rng.sample(poles, len(poles)):
        left = [one for one in told if pole.isdisjoint(content_stems(one))]
        if left and len(left) < len(told):
            return left
    return []


def _with_response(scene: Scene, response: str, template: Template) -> Scene | None:
    """The scene with another response, cut to what its template allows."""
    spec = template.fields["response"]
    if isinstance(spec, BlockSpec):
        lines: list[str] = []
        for line in response.split("\n"):
            while len(line) > spec.max_chars:
                cut = line.rfind(" ", 0, spec.max_chars)
                if cut <= 0:
                    return None
                lines.append(line[:cut])
                line = line[cut + 1 :]
            lines.append(line)
        text = "\n".join(lines[: spec.max_lines])
    elif isinstance(spec, LineSpec):
        text = " ".join(response.split())[: spec.max_chars].rstrip().replace('"', "'")
    else:
        return None
    text = text.strip()
    return replace(scene, response=text) if text and text != scene.response else None
