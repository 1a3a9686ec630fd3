"""A text as critics read it: sentences, their words' stems, and the keys of the words that say something."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ltm_edge.scene.words import content_stems, stems

__all__ = ["MOST_CHARS", "Reading", "key", "opening", "overlap", "ramp", "read"]

MOST_CHARS = 6000
"""What is read of a text; a scene has some hundreds of characters, and a critic must not take long over any."""

_MOST_SENTENCES = 120
# A sentence ends with its mark, or with a quotation mark behind it; a line ends one too.
_END = re.compile(r"(?<=[.!?…。！？])\s+|(?<=[.!?…][\"»”’)])\s+|\n+|(?<=[。！？])")
_MARKER = re.compile(r"^\s*(?:\d{1,3}[.)]|[-*•–])\s+(?=\S)")  # of a list's item: no sentence of its own
_WORDY = re.compile(r"[^\W_]")
_CODE_INDENT = "  "  # in a response only code is indented


@dataclass(frozen=True, slots=True)
class Reading:
    """A text taken apart.

    Attributes:
        sentences: those that have a word in them, code left out.
        stems: of each sentence, all words in order.
        keys: of each sentence, the words that say something, cut so that inflections of a word are one.
        code: lines of code.
    """

    sentences: tuple[str, ...]
    stems: tuple[tuple[str, ...], ...]
    keys: tuple[frozenset[str], ...]
    code: int

    @property
    def all_keys(self) -> frozenset[str]:
        """The keys of all sentences."""
        return frozenset().union(*self.keys)

    @property
    def all_stems(self) -> tuple[str, ...]:
        """The stems of all sentences in order."""
        return tuple(stem for sentence in self.stems for stem in sentence)

    def first(self, count: int) -> Reading:
        """The first sentences alone."""
        return Reading(self.sentences[:count], self.stems[:count], self.keys[:count], self.code)


def key(stem: str) -> str:
    """What inflections of a word mostly have in common: the first six letters of a stem, five where it isn't Latin."""
    return stem[:6] if stem.isascii() else stem[:5]


@lru_cache(maxsize=512)
def read(text: str) -> Reading:
    """Take a text apart; of a long one the first 6000 characters."""
    lines = text[:MOST_CHARS].split("\n")
    prose = [_MARKER.sub("", line) for line in lines if not line.startswith(_CODE_INDENT)]
    found = [part.strip() for part in _END.split("\n".join(prose))]
    sentences = tuple(part for part in found if _WORDY.search(part))[:_MOST_SENTENCES]
    return Reading(
        sentences,
        tuple(tuple(stems(one)) for one in sentences),
        tuple(frozenset(map(key, content_stems(one))) for one in sentences),
        len(lines) - len(prose),
    )


def opening(text: str, count: int) -> str:
    """The beginning of a text that holds its first ``count`` sentences and no word of the next one.

    It ends with the line break where the next sentence begins a line, else with the last sentence itself. Empty where
    nothing is kept: of no sentences, of all of them, or where they don't stand in the text as they were read.
    """
    sentences = read(text).sentences
    if not 0 < count < len(sentences):
        return ""
    end = 0
    for sentence in sentences[:count]:
        end = text.find(sentence, end) + len(sentence)
    following = text.find(sentences[count], end)
    line = text.rfind("\n", end, max(following, end))
    found = text[: line + 1] if line >= 0 else text[:end]
    return found if following >= 0 and read(found).sentences == sentences[:count] else ""


def overlap(ones: frozenset[str], others: frozenset[str]) -> float:
    """Share of the smaller set that is in the other, from 0 to 1; 0 where one is empty."""
    return len(ones & others) / min(len(ones), len(others)) if ones and others else 0.0


def ramp(value: float, low: float, high: float) -> float:
    """0 at ``low`` and beyond, 1 at ``high`` and beyond, straight between; ``low`` may be the greater one."""
    share = (value - low) / (high - low)
    return 0.0 if share <= 0.0 else 1.0 if share >= 1.0 else share
