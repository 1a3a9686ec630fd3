"""Words that critics know of one language, by the stems of the words (`words.yaml`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from ltm_edge.loop.critics.reading import key
from ltm_edge.scene.words import stems
from ltm_edge.schemas.critic_words import CriticWords, parse_critic_words

__all__ = ["Lexicon", "lexicon", "packaged_words", "says"]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The words of one language; of one that isn't known, all are empty and say nothing.

    Attributes:
        stock, evasive, announcing, closing: phrases, as `` stem stem ``, to be looked for in a sentence put alike.
        general: keys of words that say little.
        concrete: keys of words of time, measure and place.
        negations, countable: stems.
        counts: numbers by the stems of their words.
        opposites: pairs of keys, both ways.
    """

    stock: tuple[str, ...] = ()
    evasive: tuple[str, ...] = ()
    announcing: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    general: frozenset[str] = frozenset()
    concrete: frozenset[str] = frozenset()
    negations: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)
    countable: frozenset[str] = frozenset()
    opposites: frozenset[tuple[str, str]] = frozenset()


@cache
def packaged_words() -> CriticWords:
    """The words that come with the package."""
    name = "words.yaml"
    return parse_critic_words(resources.files(__package__).joinpath(name).read_bytes(), name)


@cache
def lexicon(lang: str) -> Lexicon:
    """The words of a language."""
    words = packaged_words().languages.get(lang)
    if words is None:
        return Lexicon()
    pairs = [(_key(one), _key(other)) for one, other in words.opposites]
    concrete = _keys(words.concrete)
    return Lexicon(
        _phrases(words.stock),
        _phrases(words.evasive),
        _phrases(words.announcing),
        _phrases(words.closing),
        _keys(words.general) - concrete,
        concrete,
        frozenset(stems(words.negations)),
        {stems(word)[0]: number for word, number in words.counts.items()},
        frozenset(stems(words.countable)),
        frozenset([*pairs, *((other, one) for one, other in pairs)]),
    )


def says(sentence: Sequence[str], phrases: Iterable[str]) -> bool:
    """Whether a sentence, given as stems, holds one of the phrases."""
    text = f" {' '.join(sentence)} "
    return any(phrase in text for phrase in phrases)


def _phrases(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f" {' '.join(stems(text))} " for text in texts))


def _keys(text: str) -> frozenset[str]:
    return frozenset(map(key, stems(text)))


def _key(word: str) -> str:
    return key(stems(word)[0])
