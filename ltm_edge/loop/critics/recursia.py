"""RECURSIA: does a draft circle, in itself, against earlier scenes, against earlier drafts of this turn?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ltm_edge.loop.critics.exhibit import Exhibit, likeness
from ltm_edge.loop.critics.reading import Reading, overlap, ramp, read
from ltm_edge.scene.words import shingles
from ltm_edge.schemas.overlay import Recursia

__all__ = ["signals", "texts"]

_LATEST = 16
"""Earlier scenes that are looked at; a conversation may have thousands."""

# See insight_seeker.
REPEATED_PHRASES = (0.35, 0.05)
LIKE_SENTENCES = (0.9, 0.5)
NEAR_SENTENCES = (0.95, 0.7)
_SLACK = 0.25  # below the overlay's max_similarity, where likeness to earlier scenes begins to count
_REVISED = 0.1  # the same for earlier drafts, of which a revision keeps most


def texts(exhibit: Exhibit) -> tuple[str, ...]:
    """What :func:`signals` compares by meaning."""
    earlier = [scene.response for scene in exhibit.earlier[-_LATEST:]]
    return (exhibit.scene.response, *read(exhibit.scene.response).sentences, *earlier)


def signals(exhibit: Exhibit, limits: Recursia | None = None) -> dict[str, float]:
    """What RECURSIA measures, each in [0, 1], 1 is good; ``ramp(x; a, b)``: 0 at a, 1 at b.

    ``new_phrases``: ramp(share of the runs of three words inside the response that stood there before; 0.35, 0.05).
    ``new_sentences``: ramp(greatest likeness of two of its sentences; 0.9, 0.5), where likeness is the share of the
    shorter one's keys that is in the other; with an embedder the smaller of this and ramp(greatest cosine; 0.95, 0.7).
    ``new_to_earlier``: ramp(greatest likeness to an earlier scene's response; max_similarity, max_similarity - 0.25):
    share of common runs of three words, with an embedder the greater of this and the cosine.
    ``new_to_drafts``: ramp(greatest share of runs of three words in common with an earlier draft of this turn;
    max_similarity, max_similarity - 0.1); by words only, since a revision means what its draft meant.
    ``depth``: 1 - drafts in a row that this one does not differ from, over max_depth.
    """
    limits = limits or Recursia()
    response = read(exhibit.scene.response)
    earlier = [scene.response for scene in exhibit.earlier[-_LATEST:]]
    alike = [_copied(response, read(draft.response)) for draft in exhibit.drafts]
    run = 0
    for value in reversed(alike):
        if value < limits.max_similarity:
            break
        run += 1
    top = limits.max_similarity
    return {
        "new_phrases": _new_phrases(response),
        "new_sentences": _new_sentences(exhibit, response),
        "new_to_earlier": ramp(_nearest(exhibit, response, earlier), top, top - _SLACK) if earlier else 1.0,
        "new_to_drafts": ramp(max(alike), top, top - _REVISED) if alike else 1.0,
        "depth": max(0.0, 1.0 - run / limits.max_depth),
    }


def _copied(one: Reading, other: Reading) -> float:
    a, b = shingles(one.all_stems), shingles(other.all_stems)
    return len(a & b) / len(a | b) if a or b else 1.0


def _nearest(exhibit: Exhibit, response: Reading, earlier: Sequence[str]) -> float:
    copied = max(_copied(response, read(text)) for text in earlier)
    near = likeness(exhibit, [exhibit.scene.response], earlier)
    return copied if near is None else max(copied, float(near.max()))


def _runs(sentences: Iterable[tuple[str, ...]], size: int) -> list[tuple[str, ...]]:
    words = [word for sentence in sentences for word in sentence]
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]


def _new_phrases(response: Reading) -> float:
    runs = _runs(response.stems, 3)
    return ramp(1 - len(set(runs)) / len(runs), *REPEATED_PHRASES) if runs else 1.0


def _new_sentences(exhibit: Exhibit, response: Reading) -> float:
    count = len(response.sentences)
    if count < 2:
        return 1.0
    pairs = [(i, k) for i in range(count) for k in range(i)]
    alike = max(overlap(response.keys[i], response.keys[k]) for i, k in pairs)
    value = ramp(alike, *LIKE_SENTENCES)
    near = likeness(exhibit, response.sentences, response.sentences)
    if near is not None:
        value = min(value, ramp(max(float(near[i, k]) for i, k in pairs), *NEAR_SENTENCES))
    return value
