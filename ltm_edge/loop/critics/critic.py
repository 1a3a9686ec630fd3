"""Critic: what judges a draft. The three that every bundle has combine measured signals, as their weights say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol

from ltm_edge.loop.critics import insight_seeker, obstructio, recursia
from ltm_edge.loop.critics.exhibit import Exhibit
from ltm_edge.loop.critics.standing import standing
from ltm_edge.loop.critics.verdict import Verdict
from ltm_edge.schemas.overlay import (
    Calibration,
    CriticName,
    InsightSeeker,
    Obstructio,
    Overlay,
    Questions,
    Recursia,
)

__all__ = ["Critic", "Measured", "built_in", "combine", "probability"]

_Measure = Callable[[Exhibit], dict[str, float]]
_Texts = Callable[[Exhibit], tuple[str, ...]]


class Critic(Protocol):
    """What judges a draft; a critic of your own needs no more than this."""

    @property
    def name(self) -> str:
        """Its name."""

    def judge(self, exhibit: Exhibit) -> float | Verdict:
        """A score from 0 (bad) to 1 (good), of which 0.5 passes, or a whole verdict."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A critic (CriticAgent) of measured signals.

    Attributes:
        name: as the overlay calls it.
        threshold: the least score that passes.
        weights: how much of the score each signal can take away alone.
        measure: the signals of an exhibit.
        texts: what ``measure`` compares by meaning.
        questions: self-questions by language.
        calibrations: of its probe, by language.
    """

    name: CriticName
    threshold: float
    weights: Mapping[str, float]
    measure: _Measure
    texts: _Texts
    questions: Mapping[str, Questions]
    calibrations: Mapping[str, Calibration]

    @property
    def title(self) -> str:
        """Its name as people write it, such as INSIGHT-SEEKER."""
        return self.name.upper().replace("_", "-")

    def calibration(self, lang: str) -> Calibration | None:
        """What a probe in ``lang`` is worth; None where the model needn't be asked."""
        found = self.calibrations.get(lang)
        return found if found is not None and found.weight > 0.0 else None

    def judge(self, exhibit: Exhibit, log_odds: float | None = None) -> Verdict:
        """The verdict on a draft.

        Args:
            exhibit: the draft.
            log_odds: the model's answer to the critic's question; None: it wasn't asked.

        Raises:
            ValueError: a signal isn't a number from 0 to 1.
        """
        signals = self.measure(exhibit)
        for name, value in signals.items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"signal {name} is {value}")
        score = combine(signals, self.weights)
        probe = None
        calibration = self.calibration(exhibit.lang)
        if log_odds is not None and calibration is not None:
            probe = probability(log_odds, calibration)
            score = (1.0 - calibration.weight) * score + calibration.weight * probe
        losses = {name: self.weights.get(name, 0.0) * (1.0 - value) for name, value in signals.items()}
        weakest = max(losses, key=lambda name: losses[name])
        if losses[weakest] <= 0.0:
            weakest = ""
        passed = score >= self.threshold
        note = f"{self.title} {score:.2f}, {'passed' if passed else f'under {self.threshold:.2f}'}"
        if weakest:
            note += f"; weakest: {weakest} {signals[weakest]:.2f}"
        question = "" if passed else self._question(weakest, exhibit.lang)
        stands = standing(exhibit, weakest)
        return Verdict(self.name, score, passed, signals, probe, log_odds, weakest, question, note, stands)

    def _question(self, signal: str, lang: str) -> str:
        """The self-question for a signal: in the request's language, else in English, else in any that there is."""
        bank = self.questions.get(lang) or self.questions.get("en") or next(iter(self.questions.values()), ())
        if not bank:
            return ""
        if isinstance(bank, Mapping):
            return bank.get(signal) or next(iter(bank.values()))
        # A list doesn't say which question belongs to which signal; the same signal always gets the same one.
        return bank[list(self.weights).index(signal) % len(bank)] if signal in self.weights else bank[0]


def combine(signals: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """One score of several signals: the product of 1 - weight * (1 - signal).

    So every signal can take away as much as its weight says, whatever the others are, and one with weight 1 can refuse
    alone. A mean would let six good signals outvote a response that breaks off.
    """
    return math.prod(1.0 - weights.get(name, 0.0) * (1.0 - value) for name, value in signals.items())


def probability(log_odds: float, calibration: Calibration) -> float:
    """What a probe's log-odds say after calibration, from 0 to 1."""
    x = calibration.slope * (log_odds - calibration.shift)
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0


def built_in(overlay: Overlay) -> tuple[Measured, ...]:
    """The critics that the overlay enables."""
    of = overlay.critics
    limits = of.recursia
    table: tuple[tuple[CriticName, InsightSeeker | Obstructio | Recursia, _Measure, _Texts], ...] = (
        ("insight_seeker", of.insight_seeker, insight_seeker.signals, insight_seeker.texts),
        ("obstructio", of.obstructio, obstructio.signals, obstructio.texts),
        ("recursia", limits, partial(recursia.signals, limits=limits), recursia.texts),
    )
    return tuple(
        Measured(
            name,
            settings.threshold,
            asdict(settings.weights),
            measure,
            texts,
            overlay.critic_questions.get(name, {}),
            overlay.calibration.get(name, {}),
        )
        for name, settings, measure, texts in table
        if settings.enabled
    )
