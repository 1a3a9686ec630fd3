"""One process: llama.cpp's threads don't come along into a fork."""

from __future__ import annotations

import os
from functools import lru_cache

from ltm_edge.errors import EngineError

__all__ = ["same_process"]


@lru_cache(maxsize=1)
def _owner() -> int:
    """Id of the process in which llama.cpp was first used."""
    return os.getpid()


def same_process() -> None:
    """To be called before llama.cpp computes: in a child made by fork it would wait for threads that aren't there.

    Raises:
        EngineError: this process was forked from the one in which llama.cpp was first used.
    """
    if os.getpid() != _owner():
        raise EngineError(
            f"process {os.getpid()} was forked from {_owner()}, which had opened a model: its threads are not here; "
            "start child processes with spawn or forkserver, or fork before the first model is opened"
        )
