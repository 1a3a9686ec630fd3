"""The end of a program whose daemon threads are still computing: no abort, no word, and all have stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_model

ROOT = Path(__file__).parents[2]

PROGRAM = """
import atexit, sys, threading, time
from ltm_edge import Bundle
from ltm_edge.embedders import demo_embedder
from ltm_edge.errors import Cancelled
from ltm_edge.native import core

# Handlers run in reverse order: this one behind the extension's own.
atexit.register(lambda: print("all stopped" if core().end_calls(0) else "some still run"))

def answers(session, begun):
    while True:
        session.send("Tell me of the sea.", max_tokens=400, on_token=lambda piece: begun.set())

def reads(session, begun):
    begun.set()
    session.send("the sea " * 1500)

def embeds(embedder, begun):
    while True:
        embedder.embed(["the sea"] * 64)
        begun.set()

def loads(begun):
    while True:
        begun.set()
        Bundle.open(ctx=512, threads=1)

bundle = Bundle.open(ctx=4096, threads=1)
work = {
    "answers": lambda begun: answers(bundle.session(), begun),
    "reads": lambda begun: reads(bundle.session(), begun),
    "embeds": lambda begun: embeds(demo_embedder(), begun),
    "loads": loads,
}
for name in sys.argv[2:]:
    begun = threading.Event()

    def run(name=name, begun=begun):
        try:
            work[name](begun)
        except Cancelled:
            pass

    threading.Thread(target=run, daemon=True).start()
    assert begun.wait(60)
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("wait", ["0", "0.05", "0.31"])
@pytest.mark.parametrize("work", [("answers",), ("reads",), ("embeds",), ("loads",), ("answers", "reads", "embeds")])
def test_a_daemon_thread_in_native_code_does_not_abort_the_program(work: tuple[str, ...], wait: str) -> None:
    command = [sys.executable, "-c", PROGRAM, wait, *work]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert (done.stdout, done.stderr) == ("all stopped\n", "")
