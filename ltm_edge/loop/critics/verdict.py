"""Verdict: what a critic says of a draft."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a critic says of a draft.

    Attributes:
        critic: its name.
        score: from 0 (bad) to 1 (good).
        passed: the score is at the critic's threshold or above.
        signals: what was measured, each from 0 to 1, where 1 is good.
        probe: calibrated probability that the model finds it good; None: it wasn't asked.
        log_odds: the model's log P(yes) - log P(no) to the critic's question; None: it wasn't asked.
        weakest: the signal that took most from the score; empty where none took anything.
        question: for a revision, in the request's language; empty where it passed.
        note: in plain words, for people.
        stands: sentences of the response, from its beginning, that a revision may keep.
    """

    critic: str
    score: float
    passed: bool
    signals: Mapping[str, float] = field(default_factory=dict)
    probe: float | None = None
    log_odds: float | None = None
    weakest: str = ""
    question: str = ""
    note: str = ""
    stands: int = 0

    def to_trace(self) -> dict[str, Any]:
        """The verdict as it stands in a turn's trace."""
        return {
            "critic": self.critic,
            "score": round(self.score, 3),
            "passed": self.passed,
            "signals": {name: round(value, 3) for name, value in self.signals.items()},
            "probe": None if self.probe is None else round(self.probe, 3),
            "log_odds": None if self.log_odds is None else round(self.log_odds, 3),
            "weakest": self.weakest,
            "question": self.question,
            "note": self.note,
            "stands": self.stands,
        }
