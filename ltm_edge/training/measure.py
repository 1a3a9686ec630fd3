"""Losses of a model on examples it isn't trained on: by task, by archetype, by story, and how well it judges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ltm_edge.training.model import Net
from ltm_edge.training.packing import Row

__all__ = ["Measured", "Tally", "auc", "measure"]


@dataclass(slots=True)
class Tally:
    """Sum of losses (nats) and their number."""

    total: float = 0.0
    count: int = 0

    def add(self, total: float, count: int) -> None:
        """Take more losses."""
        self.total += total
        self.count += count

    @property
    def mean(self) -> float:
        """Mean loss; NaN of none."""
        return self.total / self.count if self.count else math.nan


@dataclass(slots=True)
class Measured:
    """What was measured.

    Attributes:
        tasks: loss per token by task; ``judge`` is that of the judgements alone.
        archetypes, stories, phases: loss per token of scenes, by the scene's first archetype, its story, its phase.
        margins: of each judgement the log-odds of the good answer against the bad one, and whether the scene is good.
    """

    tasks: dict[str, Tally] = field(default_factory=dict)
    archetypes: dict[str, Tally] = field(default_factory=dict)
    stories: dict[str, Tally] = field(default_factory=dict)
    phases: dict[str, Tally] = field(default_factory=dict)
    margins: list[tuple[float, bool]] = field(default_factory=list)

    def loss(self, *tasks: str) -> float:
        """Mean over tasks of their losses per token; those that weren't measured are left out."""
        found = [self.tasks[task].mean for task in tasks if task in self.tasks]
        return sum(found) / len(found) if found else math.nan

    @property
    def judge_auc(self) -> float:
        """Chance that a good scene is judged better than a damaged one; NaN without judgements."""
        return auc([margin for margin, good in self.margins if good], [m for m, good in self.margins if not good])

    def to_dict(self) -> dict[str, float]:
        """Losses by task and the judge's AUC, rounded."""
        found = {task: round(tally.mean, 4) for task, tally in sorted(self.tasks.items())}
        if self.margins:
            found["judge_auc"] = round(self.judge_auc, 4)
        return found


def measure(net: Net, rows: Iterable[Row]) -> Measured:
    """Measure a model on rows, without training it."""
    import torch

    result = Measured()
    with torch.no_grad():
        for row in rows:
            logits = net.logits(row)
            targets = torch.from_numpy(row.targets).to(logits.device)
            nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none").double().cpu().numpy()
            asked = row.choices[:, 0] >= 0
            choices = torch.from_numpy(np.maximum(row.choices, 0)).to(logits.device)
            pair = logits.gather(1, choices).double().cpu().numpy()
            for index in np.flatnonzero(asked):
                margin = float(pair[index, 0] - pair[index, 1])
                result.margins.append((margin, bool(row.targets[index] == row.choices[index, 0])))
            for number, example in enumerate(row.examples):
                mine = row.owner == number
                judged, told = mine & asked, mine & ~asked
                if judged.any():
                    result.tasks.setdefault("judge", Tally()).add(float(nll[judged].sum()), int(judged.sum()))
                if example.task == "judge" or not told.any():  # its scene is that of `create` again
                    continue
                parts = [(result.tasks, example.task)]
                if example.task in ("create", "hold"):
                    parts += [
                        (result.archetypes, example.archetype),
                        (result.stories, example.story),
                        (result.phases, example.phase),
                    ]
                for tallies, key in parts:
                    tallies.setdefault(key, Tally()).add(float(nll[told].sum()), int(told.sum()))
    return result


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """Chance that a value of the first list is above one of the second, equal ones counting half; NaN of none."""
    if not good or not bad:
        return math.nan
    a, b = np.asarray(good)[:, None], np.asarray(bad)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())
