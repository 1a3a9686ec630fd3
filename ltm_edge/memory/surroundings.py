"""What a scene gains from the scenes around it, and where in a story the answer to a question lies.

A scene is told in the light of others: those of its session, and those that were recalled for it. A question about it
is often like these rather than like the scene itself ("why did I take the blame?" names what was told before), so part
of their resonance is lent to it, as in spreading activation (Anderson 1983, J. Verbal Learn. Verbal Behav. 22).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ltm_edge.memory.asking import Asking
from ltm_edge.memory.protocols import Floats
from ltm_edge.memory.records import Policy

__all__ = ["Around", "around", "lent", "shifted"]

Places = npt.NDArray[np.int64]

_STORY = 6  # best scenes among which those of one story are looked for
_LINKED = 0.15  # scenes that are linked need so much less likeness to count as one story
_OWN = 0.4  # share of the best one's own score from which a scene may be an answer itself
_BESIDE = 0.15  # neighbours in a session count whole from this likeness on; a session may turn to something else
_LEAST = (0.5, 0.15)  # sums of weights below which a mean isn't lent whole: beside, and in whose light


@dataclass(frozen=True, slots=True)
class Around:
    """n candidates and the m links between them.

    Attributes:
        order: place of each in the order of telling, int64 [n].
        vectors: meanings, float32 of length 1; None where there is none.
        spaces: the vector space of each; vectors of different ones are like nothing.
        later, earlier: the two ends of each link, int64 [m].
        session: whether the link is one of neighbours in a session, bool [m]; the others are recalls.
        like: cosine of its ends, not negative, float32 [m].
    """

    order: Places
    vectors: Sequence[Floats | None]
    spaces: Sequence[int]
    later: Places
    earlier: Places
    session: npt.NDArray[np.bool_]
    like: Floats

    def alike(self, one: int, other: int) -> float:
        """Cosine of two scenes' meanings; 0 where they can't be compared or it is negative."""
        return _cosine(self.vectors, self.spaces, one, other)


def _cosine(vectors: Sequence[Floats | None], spaces: Sequence[int], one: int, other: int) -> float:
    a, b = vectors[one], vectors[other]
    if a is None or b is None or spaces[one] != spaces[other]:
        return 0.0
    return max(0.0, float(a @ b))


def around(
    numbers: Sequence[int],
    moments: Sequence[int],
    vectors: Sequence[Floats | None],
    spaces: Sequence[int],
    links: Iterable[tuple[int, int, str]],
) -> Around:
    """Put together what is known of candidates.

    Args:
        numbers: their ids.
        moments: when each was told.
        vectors: meanings.
        spaces: the vector space of each.
        links: (source, target, kind) among any scenes; those between two candidates count.
    """
    place = {number: i for i, number in enumerate(numbers)}
    order = np.empty(len(numbers), dtype=np.int64)
    order[np.lexsort((np.array(numbers), np.array(moments)))] = np.arange(len(numbers))
    ends = [(place[a], place[b], kind == "predecessor") for a, b, kind in links if a in place and b in place and a != b]
    ends = [(i, j, session) if order[i] > order[j] else (j, i, session) for i, j, session in ends]
    return Around(
        order,
        vectors,
        spaces,
        np.array([i for i, _, _ in ends], dtype=np.int64),
        np.array([j for _, j, _ in ends], dtype=np.int64),
        np.array([session for _, _, session in ends], dtype=bool),
        np.array([_cosine(vectors, spaces, i, j) for i, j, _ in ends], dtype=np.float32),
    )


def lent(scores: Floats, known: Around) -> Floats:
    """What the surroundings lend to each scene, float32 [n], from 0 to the highest score.

    Half of it is the mean score of its neighbours in the session, as far as they are like it; half is the mean score of
    the scenes in whose light it was told, the one before it and those recalled for it, these by the square of their
    likeness.
    """
    like = known.like.astype(np.float64)
    beside = known.session * np.clip(like / _BESIDE, 0, 1)
    light = np.where(known.session, 0.5 * beside, like**2)
    n = len(scores)
    sums, weights = np.zeros((2, n)), np.zeros((2, n))
    for row, at, other, share in (
        (0, known.later, known.earlier, beside),
        (0, known.earlier, known.later, beside),
        (1, known.later, known.earlier, light),
    ):
        sums[row] += np.bincount(at, share * scores[other], n)
        weights[row] += np.bincount(at, share, n)
    gain: Floats = (sums / np.maximum(weights, np.array(_LEAST)[:, None])).mean(axis=0).astype(np.float32)
    return gain


def shifted(scores: Floats, own: Floats, known: Around, asked: Asking, policy: Policy) -> Floats:
    """How far the kind of question moves each scene, float32 [n].

    Only scenes of one story move: the best one and those of the best six that are like it (linked ones need less of
    that) and resonate with the question themselves. The later one of them is told, the more it gains, much where the
    question is after the present; where a cause is asked for, the best one, which tells what the question tells, steps
    back.

    Args:
        scores: with what the surroundings lend.
        own: without it.
        known: the surroundings.
        asked: what the question is after.
        policy: numbers.
    """
    moved = np.zeros(len(scores), dtype=np.float32)
    best = [int(i) for i in np.argsort(-scores, kind="stable")[:_STORY]]
    if len(best) < 2:
        return moved
    first = best[0]
    linked = {*known.later[known.earlier == first].tolist(), *known.earlier[known.later == first].tolist()}
    story = [first]
    for other in best[1:]:
        least = policy.story - _LINKED if other in linked else policy.story
        if own[other] >= _OWN * own[first] and known.alike(first, other) > least:
            story.append(other)
    if len(story) < 2:
        return moved
    place = np.argsort(np.argsort(known.order[story]))
    moved[story] += (policy.later + policy.now * asked.now) * place / (len(story) - 1)
    if asked.cause:
        moved[first] -= policy.cause
    return moved
