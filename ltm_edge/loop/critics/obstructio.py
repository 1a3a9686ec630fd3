"""OBSTRUCTIO: is a draft blocked: off the request or the centre, one-sided, evasive, at odds with itself, cut off?"""

from __future__ import annotations

import re
from itertools import pairwise

from ltm_edge.loop.critics.exhibit import Exhibit, likeness
from ltm_edge.loop.critics.lexicon import Lexicon, lexicon, says
from ltm_edge.loop.critics.reading import Reading, key, overlap, ramp, read
from ltm_edge.scene.words import stems

__all__ = ["signals", "texts"]

# See insight_seeker.
NEAR_REQUEST = (0.05, 0.35)
NEAR_CENTER = (0.05, 0.35)
NEAR_POLE = (0.1, 0.35)
SHARED_KEYS = (0.0, 0.12)
EVASIVE_SHARE = (0.6, 0.0)
DISAGREEMENT = (1.0, 0.4)
SAME_MATTER = (0.4, 0.8)

_MOST_CLAUSES = 40
_CLAUSE = re.compile(r"[,;:()—–]|\s-\s|\b(?:but|yet|and|then|но|а|и|зато|однако)\b", re.IGNORECASE)
_WORDY = re.compile(r"[^\W_]")
_ENDED = re.compile(r"[.!?…。！？]['\"»”’)\]*_]*\Z|[\U0001F000-\U0001FAFF\u2600-\u27BF]\Z")
_DIGITS = re.compile(r"\d+(?:[.,:]\d+)?")
_CONTRACTED = frozenset(
    stems("don doesn didn isn aren wasn weren can couldn won wouldn shouldn hasn haven hadn mustn needn")
)


def texts(exhibit: Exhibit) -> tuple[str, ...]:
    """What :func:`signals` compares by meaning."""
    scene = exhibit.scene
    return (
        scene.response,
        *read(scene.response).sentences,
        _asked(exhibit),
        scene.resonance_center,
        *(pole for pole in scene.poles if pole),
    )


def signals(exhibit: Exhibit) -> dict[str, float]:
    """What OBSTRUCTIO measures, each in [0, 1], 1 is good.

    *Key*: a word that says something, cut so that its inflections are one. *Share*: of the smaller of two sets of keys,
    what is in the other. ``ramp(x; a, b)``: 0 at a, 1 at b.

    ``to_request``: ramp(share of response and request with its goal; 0, 0.12); with an embedder ramp(cosine; 0.05,
    0.35).
    ``to_center``: the same to the resonance centre.
    ``both_poles``: the smaller over the tension's poles of: ramp(greatest cosine of a sentence of the response to the
    pole; 0.1, 0.35) or 1 where a key of the pole is in the response; without an embedder the latter only, as a half
    where it isn't. 0 where a pole is missing.
    ``direct``: ramp(share of sentences with an evasive phrase; 0.6, 0).
    ``consistent``: 1 - the greatest of ramp(share of two clauses; 0.4, 0.8) over pairs of clauses of which one denies
    what the other says: a negation in one only, opposites, other numbers.
    ``finished``: 1 where the response ends as sentences do, 0 where it breaks off.
    ``agreed``: ramp(disagreement of the consilium's best two drafts; 1, 0.4).
    """
    scene = exhibit.scene
    response = read(scene.response)
    words = lexicon(exhibit.lang)
    return {
        "to_request": _to(exhibit, response, _asked(exhibit), NEAR_REQUEST),
        "to_center": _to(exhibit, response, scene.resonance_center, NEAR_CENTER),
        "both_poles": _both_poles(exhibit, response),
        "direct": _direct(response, words),
        "consistent": 1.0 - _conflict(response, words),
        "finished": _finished(scene.response),
        "agreed": 1.0 if exhibit.disagreement is None else ramp(exhibit.disagreement, *DISAGREEMENT),
    }


def _asked(exhibit: Exhibit) -> str:
    return f"{exhibit.request}\n{exhibit.goal}" if exhibit.goal else exhibit.request


def _to(exhibit: Exhibit, response: Reading, text: str, near: tuple[float, float]) -> float:
    cosine = likeness(exhibit, [exhibit.scene.response], [text])
    if cosine is not None:
        return ramp(float(cosine[0, 0]), *near)
    keys = read(text).all_keys
    return ramp(overlap(response.all_keys, keys), *SHARED_KEYS) if keys else 1.0


def _both_poles(exhibit: Exhibit, response: Reading) -> float:
    poles = exhibit.scene.poles
    if not all(poles):
        return 0.0
    near = likeness(exhibit, poles, response.sentences)
    values = []
    for i, pole in enumerate(poles):
        if read(pole).all_keys & response.all_keys:
            values.append(1.0)
        else:
            values.append(0.5 if near is None else ramp(float(near[i].max()), *NEAR_POLE))
    return min(values)


def _direct(response: Reading, words: Lexicon) -> float:
    if not response.sentences:
        return 0.0
    return ramp(sum(says(one, words.evasive) for one in response.stems) / len(response.sentences), *EVASIVE_SHARE)


def _clauses(response: Reading) -> list[Reading]:
    parts = [part.strip() for one in response.sentences for part in _CLAUSE.split(one)]
    return [read(part) for part in parts if _WORDY.search(part)][:_MOST_CLAUSES]


def _negated(clause: Reading, words: Lexicon) -> bool:
    found = clause.all_stems
    contracted = any(a in _CONTRACTED and b == "t" for a, b in pairwise(found))
    return contracted or not words.negations.isdisjoint(found)


def _conflict(response: Reading, words: Lexicon) -> float:
    """How surely two of its clauses are at odds, from 0 to 1."""
    clauses = _clauses(response)
    negated = [_negated(one, words) for one in clauses]
    numbers = [set(_DIGITS.findall(" ".join(one.sentences))) for one in clauses]
    worst = 0.0
    for i, one in enumerate(clauses):
        mine = frozenset(map(key, one.all_stems))
        for k in range(i):
            other = frozenset(map(key, clauses[k].all_stems))
            opposed = {word for a, b in words.opposites if a in mine and b in other for word in (a, b)}
            clash = bool(numbers[i] and numbers[k] and numbers[i].isdisjoint(numbers[k]))
            if not (opposed or clash or negated[i] != negated[k]):
                continue
            a, b = one.all_keys - opposed - numbers[i], clauses[k].all_keys - opposed - numbers[k]
            worst = max(worst, ramp(overlap(a - words.negations, b - words.negations), *SAME_MATTER))
    return worst


def _finished(text: str) -> float:
    lines = [line for line in text.rstrip().split("\n") if line.strip()]
    if not lines:
        return 0.0
    last = lines[-1]
    if last.startswith("  ") or _ENDED.search(last):
        return 1.0
    # A list has no full stops; a sentence that breaks off stands behind others that have them.
    return 0.6 if len(lines) > 1 and not any(_ENDED.search(line) for line in lines) else 0.0
