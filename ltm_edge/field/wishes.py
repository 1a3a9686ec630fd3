"""What a request wants, found in its own words: the rest of a clause that begins with a wish."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["wish"]

_SAMPLE_CHARS = 4000
_FEWEST_LETTERS = 3
_MOST_CHARS = 120
_SENTENCE = re.compile(r"(?<=[.!?…])\s+|\n+")
_CLAUSE_END = re.compile(r"[.!?…;:()\"«»“”]|,|\s[-–—]\s|\s(?:but|because|но|потому)\s", re.IGNORECASE)
# A wish that is denied is none: "не хочу", "don't want to". English leads carry their subject, Russian ones needn't.
_DENIED = re.compile(r"(?:\bне|\bни|n't|\bnot|\bnever)\s*\Z", re.IGNORECASE)


def wish(text: str, leads: Sequence[str]) -> str | None:
    """The goal that a request names in a wish-like clause, without the words that lead into it; None if it has none.

    The first clause that begins with one of the leads, or holds one after other words, and says something after it:
    "I want to learn to swim, but I'm afraid" gives "learn to swim".

    Args:
        text: the request; its first 4000 characters are looked at.
        leads: beginnings such as "I want to"; case and the kind of apostrophe don't matter.
    """
    if not leads:
        return None
    words = "|".join(re.escape(lead.replace("’", "'")) for lead in sorted(leads, key=len, reverse=True))
    lead = re.compile(rf"(?<!\w)(?:{words})(?!\w)\s*", re.IGNORECASE)
    for sentence in _SENTENCE.split(text[:_SAMPLE_CHARS].replace("’", "'")):
        for found in lead.finditer(sentence):
            if _DENIED.search(sentence[: found.start()]):
                continue
            rest = sentence[found.end() :].lstrip(" ,")
            end = _CLAUSE_END.search(rest)
            goal = " ".join((rest[: end.start()] if end else rest).split())
            if sum(char.isalpha() for char in goal) < _FEWEST_LETTERS:
                continue
            if len(goal) > _MOST_CHARS:
                goal = goal[:_MOST_CHARS].rsplit(" ", 1)[0]
            return goal
    return None
