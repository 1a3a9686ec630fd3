"""Limits of processor time that hold on machines of any speed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
_USUAL = 0.0022  # seconds of _work on the machine that the limits in the tests were set on


def slowness() -> float:
    """How many times slower this machine is just now than the one that the limits were set on; at least 1.

    Measured in processor time by a fixed piece of work, the best of seven: what else the machine does changes little.
    """
    return max(1.0, min(_seconds() for _ in range(7)) / _USUAL)


def _seconds() -> float:
    start = time.process_time()
    counts: dict[str, int] = {}
    for number in range(20_000):
        key = str(number % 1000)
        counts[key] = counts.get(key, 0) + len(key)
    return time.process_time() - start


def cpu_seconds(*command: str, given: str = "") -> float:
    """Processor time of a Python with these arguments, the best of three: the first one fills the caches."""
    import resource

    best = 1e9
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], input=given.encode(), check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best
