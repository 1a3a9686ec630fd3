"""Consilium (консилиум): several channels draft at once over one prompt; critics and the will choose."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm_edge.errors import LtmError
from ltm_edge.loop.scene_decoder import Draft
from ltm_edge.loop.self_loop import JudgedDraft
from ltm_edge.schemas.overlay import Consilium as ConsiliumLimits

__all__ = ["Council", "Seat", "convened", "disagreements", "seated", "wills"]

_log = logging.getLogger(__name__)

_WILL = 0.2  # share of the will in a draft's rank; the critics have the rest

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, slots=True)
class Seat:
    """One channel's place in a consilium.

    Attributes:
        channel: its name.
        manner: its directive as it stands in the message; empty: none.
        sampling: how its draft's tokens are chosen.
    """

    channel: str
    manner: str
    sampling: Any


@dataclass(frozen=True, slots=True)
class Council:
    """Drafts of one consilium, ranked.

    Attributes:
        why: why it was held.
        drafts: in the order of the seats.
        wills: resonance of each draft's centre with the will, -1 to 1; 0 where either is not known.
        apart: of each draft, 1 - cosine to the draft most like it; None where that can't be measured.
    """

    why: str
    drafts: tuple[JudgedDraft, ...]
    wills: tuple[float, ...]
    apart: tuple[float | None, ...]

    @property
    def order(self) -> list[int]:
        """The drafts' numbers, best first: complete ones, those that no critic is against, then score and will."""

        def rank(i: int) -> tuple[bool, bool, float, int]:
            whole, passed, score = self.drafts[i].rank
            return whole, passed, (1 - _WILL) * score + _WILL * max(self.wills[i], 0.0), -i

        return sorted(range(len(self.drafts)), key=rank, reverse=True)

    @property
    def best(self) -> JudgedDraft:
        """The draft that was chosen."""
        return self.drafts[self.order[0]]

    def to_trace(self) -> dict[str, Any]:
        """As it stands in a turn's trace, the drafts themselves included."""
        return {
            "why": self.why,
            "chosen": self.best.draft.channel,
            "drafts": [
                {
                    "channel": one.draft.channel,
                    "document": one.draft.document,
                    "score": round(one.judged.score, 3),
                    "passed": one.judged.passed,
                    "will": round(self.wills[i], 3),
                    "apart": None if self.apart[i] is None else round(float(self.apart[i] or 0.0), 3),
                    "verdicts": [verdict.to_trace() for verdict in one.judged.verdicts],
                }
                for i, one in enumerate(self.drafts)
            ],
        }


def convened(limits: ConsiliumLimits, entropy: float | None, asked: str) -> str:
    """Why a consilium is held; empty: it isn't.

    Args:
        limits: of the overlay.
        entropy: of the routing, 0 to 1; None: nothing was routed.
        asked: ``on``, ``off`` or ``auto``, which leaves it to the overlay.
    """
    if asked == "on":
        return "asked for"
    if asked == "off" or entropy is None or limits.enabled == "never":
        return ""
    if limits.enabled == "always":
        return "always, by the overlay"
    return f"undecided: entropy {entropy:.2f} of {limits.entropy:g}" if entropy >= limits.entropy else ""


def seated(weights: Mapping[str, float], most: int) -> list[str]:
    """The channels that take part: those with most weight, at most ``most``; equal ones in the order of the field."""
    return sorted(weights, key=lambda name: -weights[name])[:most]


def disagreements(drafts: Sequence[Draft], embed: Embed | None) -> list[float | None]:
    """Of each draft's response, 1 - cosine to the one that is most like it; None where it can't be measured."""
    whole = [i for i, draft in enumerate(drafts) if draft.scene is not None]
    found: list[float | None] = [None] * len(drafts)
    if embed is None or len(whole) < 2:
        return found
    vectors = _vectors(embed, [draft.scene.response for draft in drafts if draft.scene is not None])
    if vectors is None:
        return found
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    for row, i in enumerate(whole):
        found[i] = float(np.clip(1.0 - likeness[row].max(), 0.0, 1.0))
    return found


def wills(drafts: Sequence[Draft], will: Vectors | None, embed: Embed | None) -> list[float]:
    """Cosine of each draft's resonance centre with the will (float32 [dim]); 0 where either is not known."""
    found = [0.0] * len(drafts)
    whole = [i for i, draft in enumerate(drafts) if draft.scene is not None]
    if embed is None or will is None or not whole:
        return found
    centres = _vectors(embed, [draft.scene.resonance_center for draft in drafts if draft.scene is not None])
    length = float(np.linalg.norm(will))
    if centres is None or centres.shape[1:] != will.shape or length == 0.0:
        return found
    for row, i in enumerate(whole):
        found[i] = float(centres[row] @ will) / length
    return found


def _vectors(embed: Embed, texts: Sequence[str]) -> Vectors | None:
    """Vectors of the texts, float32 [n, dim]; None where that fails: what can't be measured must not cost a draft."""
    try:
        vectors = embed(texts)
    except LtmError as error:
        _log.warning("drafts are not compared by meaning: %s", error)
        return None
    return vectors if np.isfinite(vectors).all() else None
