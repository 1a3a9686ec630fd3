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

def load(*given):
    start = time.perf_counter()
    try:
        return real(*given)
    finally:
        loads.append(time.perf_counter() - start)

LoadedModel.load = load
rows = []
for _ in range(2):
    start = time.perf_counter()
    bundle = Bundle.open(sys.argv[1])
    rows.append((time.perf_counter() - start, loads[-1]))
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
    """

    first: float
    again: float
    load: float

    def line(self) -> str:
        """The figures in a sentence."""
        first, again, load = (1e3 * value for value in (self.first, self.again, self.load))
        return (
            f"opening the bundle adds {first:.0f} ms to llama.cpp's load of {load:.0f} ms "
            f"(the second time in a process {again:.0f} ms)"
        )


def bench_opening(bundle: Path, rounds: int) -> Opening:
    """Open a bundle in new processes, its file in the page cache.

    Args:
        bundle: the GGUF file.
        rounds: processes; the best counts.
    """
    first, again, loads = [], [], []
    for _ in range(rounds):
        command = [sys.executable, "-c", _CHILD, str(bundle)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (total, load), (later, other) = json.loads(done.stdout)
        first.append(total - load)
        again.append(later - other)
        loads += [load, other]
    return Opening(min(first), min(again), min(loads))
