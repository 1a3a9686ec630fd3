"""What opening a bundle takes beyond llama.cpp's own load of the file: header, sidecar folder, documents, schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Opening", "bench_opening"]

# Opens the file twice in a process of its own; what is imported beforehand is not part of it.
_CHILD = """
import json, sys, time
from ltm_edge.bundle import Bundle
from ltm_edge.engine.model import LoadedModel

real, loads = LoadedModel.load, []

def now():
    return time.perf_counter(), time.thread_time()

def load(*given):
    start = now()
    try:
        return real(*given)
    finally:
        loads.append([b - a for a, b in zip(start, now())])

LoadedModel.load = load
rows = []
for _ in range(2):
    start = now()
    bundle = Bundle.open(sys.argv[1])
    rows.append(([b - a for a, b in zip(start, now())], loads[-1]))
    bundle.close()
print(json.dumps(rows))
"""


@dataclass(frozen=True, slots=True)
class Opening:
    """Seconds of opening one bundle, the best of all rounds.

    Attributes:
        first: what is added to llama.cpp's load by the first opening in a process, which also builds the schemas.
        again: the same for the second one.
        load: llama.cpp's own load, the best of all.
        first_cpu, again_cpu: processor time of `first` and `again`, which other programs' load changes little.
    """

    first: float
    again: float
    load: float
    first_cpu: float
    again_cpu: float

    def line(self) -> str:
        """The figures in a sentence."""
        return (
            f"opening the bundle adds {1e3 * self.first:.0f} ms to llama.cpp's load of {1e3 * self.load:.0f} ms, the "
            f"second time in a process {1e3 * self.again:.0f} ms; in processor time {1e3 * self.first_cpu:.0f} and "
            f"{1e3 * self.again_cpu:.0f} ms"
        )


def bench_opening(bundle: Path, rounds: int) -> Opening:
    """Open a bundle in new processes, its file in the page cache.

    Args:
        bundle: the GGUF file.
        rounds: processes; the best counts.
    """
    times: list[tuple[float, float, float, float, float]] = []
    for _ in range(rounds):
        command = [sys.executable, "-c", _CHILD, str(bundle)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (first, first_load), (again, again_load) = json.loads(done.stdout)
        wall, cpu = ([first[i] - first_load[i], again[i] - again_load[i]] for i in (0, 1))
        times.append((wall[0], wall[1], min(first_load[0], again_load[0]), cpu[0], cpu[1]))
    return Opening(*(min(column) for column in zip(*times, strict=True)))
