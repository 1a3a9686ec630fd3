"""Several processes on one folder of saved KV, and kill -9 in the middle of writing."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from ltm_edge.engine.state_files import StateFiles

from .state_helpers import BASE, KEY, Holder, age, states, temporaries

pytestmark = pytest.mark.usefixtures("default_cap")
SOAK = int(os.environ.get("LTM_SOAK", "0"))
KILLS = max(100, SOAK) if SOAK else 8
ROOT = Path(__file__).parents[2]

KEYS = (KEY, KEY.session("evening"))
SIZE = 4 << 20


def versions(n: int) -> np.ndarray:
    """Tokens that share their first 600 with BASE."""
    return np.concatenate([BASE[:600], np.full(400, n, dtype=np.int32)])


def write_for_ever(folder: str, first: str) -> None:
    """What the child processes do: save one state after the other under two keys."""
    files, holder = StateFiles(Path(folder)), Holder(SIZE)
    n = int(first)
    while True:
        for key in KEYS:
            if not files.save(key, versions(n), holder):
                raise SystemExit("not saved")
        if n == int(first):
            print("ready", flush=True)
        n += 1


@contextmanager
def writing(folder: Path, first: int) -> Iterator[subprocess.Popen[str]]:
    """A child process that has saved each key once and goes on doing so."""
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder), str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline() == "ready\n", child.stderr.read()
        yield child
    finally:
        child.kill()
        child.communicate()


def test_kill_9_in_the_middle_of_writing_never_leaves_a_file_that_loads_wrong(files, warned):
    chosen = random.Random(9)
    torn = 0
    kills = itertools.count()
    while (kill := next(kills)) < KILLS or not torn:  # until one came in the middle
        with writing(files.folder, kill * 10_000) as child:
            while not temporaries(files.folder):
                assert child.poll() is None
            if kill % 2:
                time.sleep(chosen.random() * 0.05)
            child.kill()
        assert child.wait() != 1
        left = temporaries(files.folder)
        torn += len(left)
        for path in left:
            age(path, 7200)
        for key in KEYS:
            holder = Holder(SIZE)
            assert files.load(key, BASE, holder) == 600
            assert holder.right and holder.given == [1000]
        assert not warned
    assert files.save(KEY, BASE[:10], Holder())
    assert not temporaries(files.folder)
    assert len(states(files.folder)) <= 4 + 2  # one more of the session, where its predecessor could not be removed


def test_two_processes_save_the_same_keys_while_a_third_loads(files, warned):
    """Both write files of the same names: the same tokens, in the same order."""
    loads = 0
    with writing(files.folder, 0), writing(files.folder, 0):
        for _ in range(25):
            for key in KEYS:
                holder = Holder(SIZE)
                loads += files.load(key, BASE, holder) == 600  # a miss where it was evicted in between
                assert holder.right
    assert loads > 0 and not warned
    for key in KEYS:
        holder = Holder(SIZE)
        assert files.load(key, BASE, holder) == 600 and holder.right


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        write_for_ever(*sys.argv[1:])
