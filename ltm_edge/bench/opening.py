"""What opening a bundle takes beyond llama.cpp's own load of the file: header, sidecar folder, documents, schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Opening", "bench_opening"]

# Opens the file twice in a process of its own, or only has llama.cpp load it; imports beforehand are no part of it.
_CHILD = """
import json, sys, time
from ltm_edge.bundle import Bundle
from ltm_edge.native import core

def now():
    return time.perf_counter(), time.process_time()

def load(path):
    options = core().ModelOptions()
    options.path = path
    return core().Model.load(options)

open_file = load if sys.argv[2] == "load" else Bundle.open
rows = []
core()
for _ in range(2):
    start = now()
    opened = open_file(sys.argv[1])
    rows.append([b - a for a, b in zip(start, now())])
    if open_file is not load:
        opened.close()
    del opened
print(json.dumps(rows))
"""


@dataclass(frozen=True, slots=True)
class Opening:
    """Seconds of opening one bundle, the best of all rounds.

    The overlay is read while the weights are, so what is added is the whole opening less a load in another process.

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
    ways: dict[str, list[list[list[float]]]] = {"load": [], "open": []}
    for _ in range(rounds):
        for way, rows in ways.items():
            command = [sys.executable, "-c", _CHILD, str(bundle), way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout))

    def best(way: str, opening: int) -> list[float]:
        """Wall and processor time."""
        return [min(times) for times in zip(*(row[opening] for row in ways[way]), strict=True)]

    first, again = best("open", 0), best("open", 1)
    first_load, load = best("load", 0), best("load", 1)
    return Opening(first[0] - first_load[0], again[0] - load[0], load[0], first[1] - first_load[1], again[1] - load[1])
