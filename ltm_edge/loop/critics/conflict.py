"""Whether a response is at odds with itself, as far as words show it."""

from __future__ import annotations

import re
from itertools import pairwise

from ltm_edge.loop.critics.lexicon import Lexicon
from ltm_edge.loop.critics.reading import Reading, key, overlap, ramp, read
from ltm_edge.scene.words import stems

__all__ = ["conflict"]

SAME_MATTER = (0.2, 0.8)
OPPOSED = 0.2
ONE_KEY = 0.6
NUMBERS = 0.6

_MOST_CLAUSES = 40
_CLAUSE = re.compile(r"[,;:()—–]|\s-\s|\b(?:but|yet|and|then|но|а|и|зато|однако)\b", re.IGNORECASE)
_WORDY = re.compile(r"[^\W_]")
_DIGITS = re.compile(r"\d+(?:[.,:]\d+)?")
_CONTRACTED = frozenset(
    stems("don doesn didn isn aren wasn weren can couldn won wouldn shouldn hasn haven hadn mustn needn")
)


def conflict(response: Reading, words: Lexicon) -> float:
    """How surely two clauses of a response are at odds, from 0 to 1.

    Two clauses can be at odds where a negation stands in one only, where they hold opposites, or other numbers. How
    surely: ramp(share of the shorter one's other keys that stand in both; 0.2, 0.8), times 0.6 where that is one key
    only, times 0.6 where nothing but numbers differ, and with opposites 0.2 at least. Of several pairs each counts: 1 -
    product of 1 - how surely. It finds what denies in the same words; what denies by its meaning only, no list of words
    finds.
    """
    clauses = _clauses(response)
    negated = [_negated(one, words) for one in clauses]
    numbers = [frozenset(_DIGITS.findall(" ".join(one.sentences))) for one in clauses]
    keys = [frozenset(map(key, one.all_stems)) for one in clauses]
    sound = 1.0
    for i, one in enumerate(clauses):
        for k in range(i):
            opposed = {word for a, b in words.opposites if a in keys[i] and b in keys[k] for word in (a, b)}
            clash = bool(numbers[i] and numbers[k] and numbers[i].isdisjoint(numbers[k]))
            if not (opposed or clash or negated[i] != negated[k]):
                continue
            mine = one.all_keys - opposed - numbers[i] - words.negations
            other = clauses[k].all_keys - opposed - numbers[k] - words.negations
            surely = ramp(overlap(mine, other), *SAME_MATTER) * (1.0 if len(mine & other) > 1 else ONE_KEY)
            if not opposed and negated[i] == negated[k]:
                surely *= NUMBERS
            sound *= 1.0 - max(surely, OPPOSED if opposed else 0.0)
    return 1.0 - sound


def _clauses(response: Reading) -> list[Reading]:
    parts = [part.strip() for one in response.sentences for part in _CLAUSE.split(one)]
    return [read(part) for part in parts if _WORDY.search(part)][:_MOST_CLAUSES]


def _negated(clause: Reading, words: Lexicon) -> bool:
    found = clause.all_stems
    contracted = any(a in _CONTRACTED and b == "t" for a, b in pairwise(found))
    return contracted or not words.negations.isdisjoint(found)
