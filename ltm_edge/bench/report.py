"""Report: what every benchmark gives, as lines for people and as plain data."""

from __future__ import annotations

import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from ltm_edge.bench.table import render

__all__ = ["Columns", "Report", "conditions", "load_averages", "table", "this_machine"]

Row = TypeVar("Row")

Columns = Mapping[str, Callable[[Row], str]]
"""Cell of a row by the head of its column."""


class Report(ABC):
    """What a benchmark measured. Reports are frozen dataclasses; their fields are what JSON gets."""

    __slots__ = ()

    @abstractmethod
    def lines(self) -> list[str]:
        """The report for people."""

    def summary(self) -> dict[str, float | None]:
        """Figures computed of the others that JSON gets beside them; empty where there are none."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        found = asdict(self)  # type: ignore[call-overload]  # its subclasses are dataclasses
        summary = self.summary()
        return {**found, "summary": summary} if summary else found


def table(columns: Columns[Row], rows: Sequence[Row]) -> str:
    """Rows under the heads of their columns: the first column to the left, the others to the right."""
    return render(list(columns), [[cell(row) for cell in columns.values()] for row in rows])


def load_averages() -> list[float]:
    """How busy the machine is at this moment: means over 1, 5 and 15 minutes; empty on Windows."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return []


def this_machine() -> dict[str, Any]:
    """What the figures depend on: platform, processor count, and how busy the machine is at this moment."""
    return {"platform": platform.platform(), "cores": os.cpu_count(), "load": load_averages()}


def conditions(machine: Mapping[str, Any], after: Sequence[float] | None = None) -> str:
    """The machine in a line.

    Args:
        machine: as :func:`this_machine` gave it before measuring.
        after: load averages at the end; None: they weren't taken.
    """
    load = " ".join(str(value) for value in machine["load"])
    if after is not None:
        load += f" before and {' '.join(str(value) for value in after)} after"
    return f"{machine['platform']}, {machine['cores']} cores, load {load}"
