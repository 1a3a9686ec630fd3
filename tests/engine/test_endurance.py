"""Long use: cancelled anywhere, turn after turn, the engine answers as on its first day and takes no more room.

A few rounds in `make test`; `make soak` (LTM_SOAK=200) makes 200 cancels and 1000 turns of it.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ltm_edge.bundle import Bundle
from ltm_edge.engine.decoder import Decoder, Order, Sampling
from ltm_edge.engine.model import LoadedModel, Tokens

pytestmark = pytest.mark.needs_model

SOAK = int(os.environ.get("LTM_SOAK", "0"))
GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
GRAMMAR = r"""
root ::= "scene:\n  tension: \"" pole " vs " pole "\"\n"
pole ::= [a-z] [a-z ]{0,8} [a-z]
"""
TEXTS = ("Name two feelings.", "Tea or coffee?", "I miss my grandmother.", "What does the sea want?")


def prompt(model: LoadedModel, text: str) -> Tokens:
    return model.tokenize_segments(
        [("<|im_start|>user\n", True), (text, False), ("<|im_end|>\n<|im_start|>assistant\n", True)]
    )


def resident() -> int:
    """Bytes of this process in memory, without files that are mapped: the system takes and gives these as it likes."""
    gc.collect()
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:"))) << 10


def test_cancelled_at_any_point_the_next_answers_are_the_same(exact_model: LoadedModel) -> None:
    """Cancelled while reading, while choosing, while writing: from the stream, or from another thread at any moment."""
    rng = random.Random(4)
    decoder = Decoder(exact_model)
    orders = [Order(prompt(exact_model, text), 24, GREEDY, GRAMMAR) for text in TEXTS[:2]]
    expected = [done.tokens.tolist() for done in decoder.write_many(orders)]
    stopped = 0
    for _ in range(max(8, SOAK)):
        if rng.random() < 0.5:
            decoder.clear()
        after = rng.randrange(20)
        heard = [0]

        def stop_after(_index: int, _text: str, heard: list[int] = heard, after: int = after) -> None:
            heard[0] += 1
            if heard[0] > after:
                decoder.cancel()

        timer = threading.Timer(rng.uniform(0.0, 1.0), decoder.cancel)
        by_clock = rng.random() < 0.5
        if by_clock:
            timer.start()
        done = decoder.write_many(orders, on_text=None if by_clock else stop_after)
        if by_clock:
            timer.cancel()
            timer.join()
        decoder.resume()  # where the work ended before the cancel came
        stopped += any(one.stop == "cancelled" for one in done)
        for one, tokens in zip(done, expected, strict=True):
            assert one.tokens.tolist() == tokens[: len(one.tokens)]
        assert decoder.stats["leased"] == 0
        assert [one.tokens.tolist() for one in decoder.write_many(orders)] == expected
    assert stopped >= 3


def test_after_many_turns_the_answer_is_a_fresh_engines(exact_model: LoadedModel) -> None:
    """Drafts, scores, commits and a text that slides along: then the same history read by an engine that is new."""
    rng = random.Random(7)
    decoder = Decoder(exact_model)
    turns: list[Tokens] = []
    yes = exact_model.tokenize(" yes")[:1]
    for turn in range(5 * SOAK or 12):
        asked = prompt(exact_model, f"{rng.choice(TEXTS)} {turn}")
        spine = np.concatenate([*turns[-3:], asked]).astype(np.int32)
        drafts = decoder.write_many(
            [Order(spine, 10, Sampling(temperature=1.0, seed=rng.randrange(1000)), GRAMMAR if turn % 2 else "")]
            * rng.choice((1, 2, 3))
            if turn % 2 == 0
            else [Order(spine, 24, GREEDY, GRAMMAR)]
        )
        read = np.concatenate([spine, drafts[-1].tokens]).astype(np.int32)
        decoder.score([(np.concatenate([read, exact_model.tokenize(" Yes?")]).astype(np.int32), [yes])])
        decoder.commit(read)
        turns.append(np.concatenate([asked, drafts[-1].tokens]).astype(np.int32))
        assert decoder.stats["leased"] == 0
        assert decoder.stats["sequences"] <= 16
    history = np.concatenate([*turns[-3:], prompt(exact_model, "And what do you say now?")]).astype(np.int32)
    old = decoder.write(history, max_tokens=24, sampling=GREEDY, gbnf=GRAMMAR)
    new = Decoder(exact_model).write(history, max_tokens=24, sampling=GREEDY, gbnf=GRAMMAR)
    assert old.reused > 0 and new.reused == 0
    assert old.tokens.tolist() == new.tokens.tolist()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_long_conversation_takes_no_more_memory(demo_path: Path, plain_overlay: Path) -> None:
    """Turn after turn in one session whose context is full most of the time."""
    short = {"seed": 1, "temperature": 0.0, "max_tokens": 50}
    turns = 5 * SOAK or 12
    bundle = Bundle.open(demo_path, ctx=512, overlay=plain_overlay)
    with bundle, bundle.session(sampling=short, template="mirror") as session:
        early = 0
        for turn in range(turns):
            reply = session.send(f"This is what I have to say for time {turn}.")
            assert reply.scene is not None
            if turn == turns // 4:
                early = resident()
        session.settle()
        assert session._decoder is not None
        assert session._decoder.stats["leased"] == 0 and session._decoder.stats["sequences"] <= 3
        late = resident()
        assert reply.trace["prompt"]["dropped_turns"] > 0
        history = sum(len(repr(turn.trace)) + len(turn.document) for turn in session.history)
        print(f"{turns} turns: {early / 1e6:.1f} MB after a quarter, {late / 1e6:.1f} MB after all, history {history}")
        assert late < early * 1.02
        # A conversation that begins anew is one that begins.
        session.clear()
        again = session.send("I wait.")
    bundle = Bundle.open(demo_path, ctx=512, overlay=plain_overlay)
    with bundle, bundle.session(sampling=short, template="mirror") as session:
        assert session.send("I wait.").document == again.document
