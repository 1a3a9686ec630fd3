"""Calibration of probes: what a model's yes is worth, found on good scenes and damaged ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ltm_edge.loop.critics.critic import Measured, combine
from ltm_edge.loop.critics.examples import OWN_KINDS, Example
from ltm_edge.loop.critics.exhibit import Embed, Exhibit, keeping
from ltm_edge.loop.critics.hearing import Hearing
from ltm_edge.schemas.overlay import Calibration, CriticName

__all__ = ["Calibration", "Fitted", "auc", "calibrate", "fit_probe"]

_LEAST = 8
"""Good and damaged examples that a calibration needs, each; fewer say nothing about the next one."""

_RIDGE = 1.0  # keeps the slope finite where good and damaged are apart; log-odds are scaled to a spread of 1 first
_STEPS = 50


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration and what it was found on.

    Attributes:
        calibration: what goes into the overlay.
        probe_auc, signals_auc: how well each tells good from damaged: 0.5 is chance, 1 is always.
        good, damaged: numbers of examples.
    """

    calibration: Calibration
    probe_auc: float
    signals_auc: float
    good: int
    damaged: int


def auc(good: Sequence[float], damaged: Sequence[float]) -> float:
    """Area under the ROC curve: how often a good one scores over a damaged one, ties as a half (Mann and Whitney)."""
    ones, others = np.asarray(good, dtype=np.float64)[:, None], np.asarray(damaged, dtype=np.float64)[None, :]
    return float(np.mean((ones > others) + 0.5 * (ones == others)))


def fit_probe(good: Sequence[float], damaged: Sequence[float], signals_auc: float = 0.5, least: int = _LEAST) -> Fitted:
    """A calibration of one probe.

    Slope and shift: logistic regression of good against damaged on the log-odds, both classes with the same weight
    (Platt's scaling). Weight: the probe's share of what probe and signals can tell, p / (p + s), where s is 2 AUC - 1
    of the signals and p the same of the probe with its AUC less one standard error (Hanley and McNeil 1982). So a probe
    that tells no better than chance has the weight 0, and the model isn't asked.

    Args:
        good: log-odds on good scenes.
        damaged: log-odds on damaged ones.
        signals_auc: how well the critic's signals tell the same scenes apart.
        least: fewer good or damaged ones give the weight 0.
    """
    if len(good) < least or len(damaged) < least:
        return Fitted(Calibration(), 0.5, signals_auc, len(good), len(damaged))
    found = auc(good, damaged)
    telling = max(0.0, 2.0 * (found - _error(found, len(good), len(damaged))) - 1.0)
    signals = max(0.0, 2.0 * signals_auc - 1.0)
    shift, slope = _platt(np.asarray(good, dtype=np.float64), np.asarray(damaged, dtype=np.float64))
    if telling <= 0.0 or slope <= 0.0:
        return Fitted(Calibration(), found, signals_auc, len(good), len(damaged))
    weight = round(telling / (telling + signals), 3)
    return Fitted(Calibration(round(shift, 4), round(slope, 4), weight), found, signals_auc, len(good), len(damaged))


def _error(area: float, good: int, damaged: int) -> float:
    """Standard error of an AUC."""
    ones, others = area / (2.0 - area), 2.0 * area * area / (1.0 + area)
    spread = area * (1 - area) + (good - 1) * (ones - area * area) + (damaged - 1) * (others - area * area)
    return math.sqrt(max(0.0, spread) / (good * damaged))


def _platt(good: npt.NDArray[np.float64], damaged: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Shift and slope by Newton's method; (0, 0) where all log-odds are the same."""
    x = np.concatenate([good, damaged])
    middle, spread = float(x.mean()), float(x.std())
    if spread < 1e-9:
        return 0.0, 0.0
    z = np.stack([np.ones_like(x), (x - middle) / spread], axis=1)
    y = np.concatenate([np.ones(len(good)), np.zeros(len(damaged))])
    share = np.concatenate([np.full(len(good), 0.5 / len(good)), np.full(len(damaged), 0.5 / len(damaged))]) * len(x)
    ridge = np.diag([1e-6, _RIDGE])
    beta = np.zeros(2)
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(z @ beta, -30, 30)))
        step = np.linalg.solve(
            (z * (share * p * (1 - p))[:, None]).T @ z + ridge, z.T @ (share * (p - y)) + ridge @ beta
        )
        beta -= step
        if float(np.abs(step).max()) < 1e-9:
            break
    slope = float(beta[1]) / spread
    return (middle - float(beta[0]) / slope, slope) if slope > 0.0 else (0.0, 0.0)


def calibrate(
    critics: Sequence[Measured],
    good: Sequence[Example],
    damaged: Sequence[Example],
    hearing: Hearing,
    embed: Callable[[str], Embed | None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[CriticName, dict[str, Fitted]]:
    """Calibrations of the critics' probes, by critic and language.

    Args:
        critics: those whose probes are calibrated, each on good scenes and on those with the damages it is there for.
        good: good scenes.
        damaged: damaged ones.
        hearing: puts them before the model.
        embed: an embedder for a text, None where it doesn't cover its language.
        progress: gets (read, all).
    """
    kinds: Mapping[str, set[str]] = {one.name: {"good", *OWN_KINDS[one.name]} for one in critics}
    wanted = [one for one in (*good, *damaged) if any(one.kind in of for of in kinds.values())]

    def asked(example: Example) -> list[str]:
        return [name for name, of in kinds.items() if example.kind in of]

    odds = hearing.odds(wanted, asked, lambda done: progress(done, len(wanted)))
    fitted: dict[CriticName, dict[str, Fitted]] = {}
    for critic in critics:
        for lang in sorted({one.lang for one in wanted}):
            mine = [
                (example.kind == "good", found[critic.name], _score(critic, example, embed))
                for example, found in zip(wanted, odds, strict=True)
                if example.lang == lang and critic.name in found
            ]
            ones, others = [row for row in mine if row[0]], [row for row in mine if not row[0]]
            if not ones or not others:
                continue
            signals_auc = auc([row[2] for row in ones], [row[2] for row in others])
            fit = fit_probe([row[1] for row in ones], [row[1] for row in others], signals_auc)
            fitted.setdefault(critic.name, {})[lang] = fit
    return fitted


def _score(critic: Measured, example: Example, embed: Callable[[str], Embed | None]) -> float:
    text = f"{example.request}\n{example.scene.response}"
    exhibit = Exhibit(example.request, example.goal, example.lang, example.scene, embed=embed(text))
    return combine(critic.measure(keeping(exhibit, critic.texts(exhibit))), critic.weights)
