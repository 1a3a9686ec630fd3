"""Figures and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Stats", "number", "render", "stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """A distribution over the tokens of a document, microseconds; every token counts with its best of the rounds.

    ``rounds``: how often the document was walked.
    """

    mean: float
    p50: float
    p99: float
    max: float
    rounds: int

    def __str__(self) -> str:
        return " / ".join(number(value) for value in (self.mean, self.p50, self.p99, self.max))


def stats(samples: npt.ArrayLike) -> Stats | None:
    """Statistics of times in nanoseconds, [rounds, tokens]; None without samples."""
    times = np.asarray(samples, dtype=np.float64)
    if times.size == 0:
        return None
    each = times.min(axis=0) / 1e3  # whatever else the machine does only adds
    return Stats(
        mean=float(each.mean()),
        p50=float(np.percentile(each, 50)),
        p99=float(np.percentile(each, 99)),
        max=float(each.max()),
        rounds=len(times),
    )


def number(value: float | int | None, digits: int = 3) -> str:
    """A figure with about three digits that say something; a dash for None and for what isn't a number."""
    if value is None or value != value:
        return "–"
    if isinstance(value, int):
        return str(value)
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{max(0, digits - len(str(int(abs(value)))))}f}"


def render(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table: the first column to the left, the others to the right."""
    table = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
