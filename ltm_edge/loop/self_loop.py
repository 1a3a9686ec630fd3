"""SelfLoop: draft, critics, revise, keep the better; bounded in passes, tokens and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ltm_edge.loop.critics.panel import Judged
from ltm_edge.loop.scene_decoder import Draft
from ltm_edge.schemas.overlay import SelfLoopLimits

__all__ = ["Budget", "JudgedDraft", "LoopResult", "SelfLoop"]

_MOST_CHARS = 8000  # of a lost document in the trace; a draft has some hundreds


@dataclass(frozen=True, slots=True)
class JudgedDraft:
    """A draft and what the critics said of it."""

    draft: Draft
    judged: Judged

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """What decides between two drafts: complete, no critic against it, mean score."""
        return self.draft.scene is not None, self.judged.passed, self.judged.score


@dataclass(frozen=True, slots=True)
class LoopResult:
    """What the loop came to.

    Attributes:
        best: the accepted draft.
        tried: all drafts in the order in which they were written.
        why: why it stopped: ``accepted``, ``passes``, ``no better``, ``budget``, ``cancelled`` or ``incomplete``.
    """

    best: JudgedDraft
    tried: tuple[JudgedDraft, ...]
    why: str

    @property
    def cancelled(self) -> bool:
        """Whether someone stopped it."""
        return self.why == "cancelled"

    def to_trace(self) -> dict[str, Any]:
        """The loop as it stands in a turn's trace; the verdicts of each draft stand in the order of the passes.

        With those that lost stand their documents, since nothing else shows them.
        """
        judged = [one.judged.to_trace() for one in self.tried]
        for one, entry in zip(self.tried, judged, strict=True):
            if one is not self.best:
                entry["document"] = one.draft.document[:_MOST_CHARS]
        return {
            "passes": len(self.tried),
            "accepted": next(i for i, one in enumerate(self.tried) if one is self.best),
            "why": self.why,
            "judged": judged,
        }


@dataclass(slots=True)
class Budget:
    """What a turn may spend on its drafts.

    Attributes:
        seconds: from the beginning of the turn; None: without limit.
        tokens: that all drafts together may have; None: without limit.
        speed: seconds that a token took last, the reading before it included; 0: not known.
    """

    seconds: float | None = None
    tokens: int | None = None
    speed: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    spent: int = 0

    def room(self, wanted: int) -> int:
        """Tokens that the next draft may take, at most ``wanted``; what a document needs is for the caller to know."""
        room = wanted if self.tokens is None else min(wanted, self.tokens - self.spent)
        if self.seconds is not None and self.speed > 0:
            left = self.seconds - (time.perf_counter() - self.started)
            room = min(room, int(left / self.speed))
        return max(room, 0)

    def note(self, draft: Draft, seconds: float) -> None:
        """Count a draft that took so long."""
        written = len(draft.done.tokens)
        self.spent += written
        if written:
            self.speed = seconds / written


class SelfLoop:
    """SelfLoop (цикл самопереформулирования): sends a draft back with the critics' questions while that helps."""

    def __init__(self, limits: SelfLoopLimits, max_depth: int) -> None:
        """Take the limits.

        Args:
            limits: of the overlay.
            max_depth: revisions in a row without improvement before the loop stops (RECURSIA).
        """
        self._limits = limits
        self._max_depth = max_depth

    def run(
        self,
        first: JudgedDraft,
        revise: Callable[[JudgedDraft], JudgedDraft | None],
        stopped: Callable[[], str],
    ) -> LoopResult:
        """Revise until a draft is accepted, or one of the bounds is reached.

        A draft is accepted if no critic is against it and their mean score reaches ``accept``. The best draft wins, the
        earlier of two that are alike.

        Args:
            first: the draft to begin with.
            revise: writes the next draft of the one before; None where the budget holds none.
            stopped: why no further pass may begin; empty: it may. ``cancelled`` outweighs that a draft is good enough.
        """
        tried = [first]
        best, last, depth = first, first, 0
        while True:
            halted = stopped()
            why = halted if halted == "cancelled" else self._done(last, len(tried), depth) or halted
            if why:
                break
            revised = revise(last)
            if revised is None:
                why = "budget"
                break
            tried.append(revised)
            last = revised
            depth += 1
            if revised.rank > best.rank:
                best, depth = revised, 0
        return LoopResult(best, tuple(tried), why)

    def _done(self, last: JudgedDraft, passes: int, depth: int) -> str:
        if last.draft.scene is None:
            return "cancelled" if last.draft.done.stop in ("cancelled", "sink") else "incomplete"
        if last.judged.passed and last.judged.score >= self._limits.accept:
            return "accepted"
        if not self._limits.enabled or passes >= self._limits.max_passes:
            return "passes"
        return "no better" if depth >= self._max_depth else ""
