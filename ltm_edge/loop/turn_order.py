"""TurnOrder: what one turn is asked to do, and what its critics judge by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltm_edge.loop.consilium import Seat, Vectors
from ltm_edge.loop.self_loop import Budget
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene

__all__ = ["Evidence", "TurnOrder"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What critics judge by, beside the request and the draft.

    Attributes:
        recalled: what was said and answered in the scenes that the memory brought up.
        earlier: scenes of the conversation's earlier turns, oldest first.
        embed: texts to vectors, float32 [n, dim] of length 1; None where nothing can embed the request's language.
        will: the goal that persists across turns, float32 [dim]; None: there is none.
    """

    recalled: tuple[str, ...] = ()
    earlier: tuple[Scene, ...] = ()
    embed: Callable[[Sequence[str]], Vectors] | None = None
    will: Vectors | None = None


@dataclass(frozen=True, slots=True)
class TurnOrder:
    """What one turn is asked to do.

    Attributes:
        pvq: the request.
        lang: language of the answer.
        max_tokens: tokens that the document may take.
        sampling: how tokens are chosen, the seed included.
        notices: what happened to the request before it got here.
        recalled: what the memory brings up, as it is to stand in the prompt.
        manner: the directives of the turn's channels, as they are to stand in the prompt.
        adapters: what the channels do to the model; None: nothing.
        seats: channels that draft at once; empty: one draft of the whole mix.
        council: why they do.
        evidence: what critics judge by.
        budget: what all passes together may spend.
    """

    pvq: Pvq
    lang: str
    max_tokens: int
    sampling: Any
    notices: tuple[str, ...] = ()
    recalled: str = ""
    manner: str = ""
    adapters: Any = None
    seats: tuple[Seat, ...] = ()
    council: str = ""
    evidence: Evidence = field(default_factory=Evidence)
    budget: Budget = field(default_factory=Budget)
