"""What of a response stands, whatever a critic holds against it: the sentences that a revision may begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ltm_edge.loop.critics.conflict import conflict
from ltm_edge.loop.critics.exhibit import Exhibit, likeness
from ltm_edge.loop.critics.insight_seeker import NEW_WORDS
from ltm_edge.loop.critics.lexicon import lexicon, says
from ltm_edge.loop.critics.reading import Reading, overlap, read
from ltm_edge.loop.critics.recursia import LIKE_SENTENCES
from ltm_edge.scene.words import shingles

__all__ = ["standing"]

_Find = Callable[[Exhibit, Reading], int | None]


def standing(exhibit: Exhibit, signal: str) -> int:
    """How many of the response's first sentences stand where ``signal`` took most from a critic's score.

    Where a sentence is at fault, those before it stand. Where nothing is, but something is wanting, the first half
    stands, rounded up. Where all of it is at fault (it is off the request, or one draft again), none does, and none of
    a response with code. The last sentence never stands: something must be written.
    """
    response = read(exhibit.scene.response)
    count = len(response.sentences)
    if response.code or count < 2:
        return 0
    if signal in _WANTING:
        return (count + 1) // 2
    find = _FAULTS.get(signal)
    found = find(exhibit, response) if find is not None else None
    return 0 if found is None else min(found, count - 1)


# "": nothing took anything, and yet it did not pass.
_WANTING = ("", "takes_up", "concrete", "to_center", "both_poles")


def _first(places: Iterable[int]) -> int | None:
    return next(iter(places), None)


def _saying(kind: str) -> _Find:
    """The first sentence with one of a language's phrases."""

    def find(exhibit: Exhibit, response: Reading) -> int | None:
        phrases = getattr(lexicon(exhibit.lang), kind)
        return _first(i for i, one in enumerate(response.stems) if says(one, phrases))

    return find


def _told_before(exhibit: Exhibit, response: Reading) -> int | None:
    """The first sentence that says little that the request doesn't say."""
    asked = read(exhibit.request).all_keys
    return _first(i for i, keys in enumerate(response.keys) if keys and len(keys - asked) / len(keys) < NEW_WORDS[1])


def _quoting(texts: Callable[[Exhibit], Iterable[str]]) -> _Find:
    """The first sentence that has three words in a row in common with one of the texts."""

    def find(exhibit: Exhibit, response: Reading) -> int | None:
        known = frozenset[tuple[str, ...]]().union(*(shingles(read(text).all_stems) for text in texts(exhibit)))
        return _first(i for i, one in enumerate(response.stems) if shingles(one) & known)

    return find


def _repeating(_: Exhibit, response: Reading) -> int | None:
    """The first sentence that ends three words which stood there before."""
    runs: set[tuple[str, ...]] = set()
    words: list[str] = []
    for place, sentence in enumerate(response.stems):
        for word in sentence:
            words.append(word)
            run = tuple(words[-3:])
            if len(run) == 3 and run in runs:
                return place
            runs.add(run)
    return None


def _alike(exhibit: Exhibit, response: Reading) -> int | None:
    """The first sentence that is like one before it by its words, else the later of the two nearest by meaning."""
    keys, low = response.keys, LIKE_SENTENCES[1]
    found = _first(i for i in range(len(keys)) if any(overlap(keys[i], keys[k]) > low for k in range(i)))
    near = likeness(exhibit, response.sentences, response.sentences) if found is None else None
    if near is None:
        return found
    pairs = np.tril(near + 2.0, -1)  # of two sentences the later one first; what is no pair is 0
    return int(np.unravel_index(int(pairs.argmax()), pairs.shape)[0])


def _denying(exhibit: Exhibit, response: Reading) -> int | None:
    """The first sentence that is at odds with itself or with one before it."""
    words = lexicon(exhibit.lang)
    return _first(i for i in range(len(response.sentences)) if conflict(response.first(i + 1), words) > 0.0)


_FAULTS: dict[str, _Find] = {
    "new_to_request": _told_before,
    "new_to_memory": _quoting(lambda exhibit: exhibit.recalled),
    "own_words": _saying("stock"),
    "direct": _saying("evasive"),
    "consistent": _denying,
    "finished": lambda _, response: len(response.sentences) - 1,
    "new_phrases": _repeating,
    "new_sentences": _alike,
    "new_to_earlier": _quoting(lambda exhibit: (scene.response for scene in exhibit.earlier)),
}
