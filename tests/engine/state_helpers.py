"""What the tests of saved KV share."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np

from ltm_edge.engine.state_files import StateKey

KEY = StateKey(model="0" * 32, kv_type="f16", adapters="", library="llama.cpp 1")
BASE = np.arange(1000, dtype=np.int32)


class Holder:
    """Holds KV that follows from its tokens, so that any mixture of two files shows. For many files, or large ones."""

    def __init__(self, size: int = 1000, *, n_ctx: int = 4096, can_shift: bool = True) -> None:
        self.size, self.n_ctx, self.can_shift = size, n_ctx, can_shift
        self.asked = 0
        self.given: list[int] = []
        self.right = True

    def kv(self, tokens):
        seed = int.from_bytes(hashlib.blake2b(tokens.tobytes(), digest_size=8).digest(), "big")
        return np.frombuffer(np.random.default_rng(seed).bytes(self.size), dtype=np.uint8)

    def save_state(self, tokens):
        self.asked += 1
        return self.kv(tokens), len(tokens)

    def restore_state(self, tokens, data):
        self.given.append(len(tokens))
        self.right &= np.array_equal(self.kv(tokens), data)
        return True


def states(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.kv"))


def temporaries(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.tmp"))


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))
