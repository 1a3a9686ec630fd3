"""Good scenes and damaged ones, to find out what critics and probes are worth."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ltm_edge.loop.critics.lexicon import packaged_words
from ltm_edge.loop.critics.reading import read
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.overlay import CriticName
from ltm_edge.schemas.template import Template

__all__ = ["KINDS", "OWN_KINDS", "Example", "balanced", "damaged", "examples_of"]

KINDS = ("looping", "off_topic", "missing_pole", "boilerplate", "contradiction", "truncation")

OWN_KINDS: Mapping[CriticName, tuple[str, ...]] = {
    "insight_seeker": ("boilerplate",),
    "obstructio": ("off_topic", "missing_pole", "contradiction", "truncation"),
    "recursia": ("looping",),
}
"""The kinds of damage that each critic is there for."""

_DENIED = {"en": "It isn't true that {}", "ru": "Неправда, что {}"}
_STOCK_PHRASES = 6
_CUT = 0.6  # share of a response that a truncation leaves


@dataclass(frozen=True, slots=True)
class Example:
    """A scene that answers a request.

    Attributes:
        request, goal, lang: what was asked.
        scene: the answer.
        kind: ``good``, or the kind of its damage.
        template: what it was written under; None: not known.
    """

    request: str
    goal: str | None
    lang: str
    scene: Scene
    kind: str = "good"
    template: str | None = None


def examples_of(templates: Mapping[str, Template]) -> list[Example]:
    """The templates' own examples."""
    return [
        Example(one.pvq.text, one.pvq.goal, lang, one.scene, template=template.name)
        for template in templates.values()
        for lang, examples in template.examples.items()
        for one in examples
    ]


def damaged(good: Sequence[Example]) -> list[Example]:
    """Each example damaged in each way that a program can: the same for the same examples.

    ``looping``: its first sentence again and again. ``off_topic``: the response of another example of its language.
    ``missing_pole``: without the sentences that speak of the second pole, where some are left. ``boilerplate``: stock
    phrases. ``contradiction``: one of its sentences denied at the end. ``truncation``: cut off inside a word.
    """
    return [replace(one, scene=scene, kind=kind) for one in good for kind, scene in _damages(one, good)]


def _damages(one: Example, good: Sequence[Example]) -> Iterator[tuple[str, Scene]]:
    for kind, response in _responses(one, good):
        if response.strip() and response != one.scene.response:
            yield kind, replace(one.scene, response=response.strip())


def _responses(one: Example, good: Sequence[Example]) -> Iterator[tuple[str, str]]:
    response = one.scene.response
    reading = read(response)
    chance = int.from_bytes(hashlib.sha256(f"{one.request}\0{response}".encode()).digest()[:8], "big")
    if reading.sentences:
        yield "looping", " ".join([reading.sentences[0]] * 4)
    others = [other.scene.response for other in good if other.lang == one.lang and other.request != one.request]
    if others:
        yield "off_topic", others[chance % len(others)]
    pole = read(one.scene.poles[1]).all_keys
    kept = [text for text, keys in zip(reading.sentences, reading.keys, strict=True) if not keys & pole]
    if 0 < len(kept) < len(reading.sentences) and not reading.code:
        yield "missing_pole", " ".join(kept)
    words = packaged_words().languages.get(one.lang)
    if words is not None:
        stock = [words.stock[(chance + 7 * i) % len(words.stock)] for i in range(_STOCK_PHRASES)]
        yield "boilerplate", " ".join(f"{text[0].upper()}{text[1:]}." for text in stock)
    if reading.sentences and one.lang in _DENIED:
        told = reading.sentences[chance % len(reading.sentences)]
        yield "contradiction", f"{response} {_DENIED[one.lang].format(told[0].lower() + told[1:])}"
    cut = response[: int(len(response) * _CUT)]
    word = re.search(r"\w\w+\Z", cut)
    yield "truncation", cut if word is None else cut[:-1]


def balanced(examples: Iterable[Example], most: int) -> list[Example]:
    """At most so many examples of each language, chosen by the hash of their requests."""
    ordered = sorted(examples, key=lambda one: hashlib.sha256(one.request.encode("utf-8")).digest())
    counts: dict[str, int] = {}
    kept = []
    for one in ordered:
        counts[one.lang] = counts.get(one.lang, 0) + 1
        if counts[one.lang] <= most:
            kept.append(one)
    return kept
