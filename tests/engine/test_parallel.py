"""Several answers in common batches: each is what it would be alone, whatever becomes of the others."""

from __future__ import annotations

import os
import random
import re
import threading

import numpy as np
import pytest

from ltm_edge.engine.decoder import Decoder, Order, Sampling
from ltm_edge.engine.model import LoadedModel
from ltm_edge.errors import ContextFull, InputError

pytestmark = pytest.mark.needs_model


@pytest.fixture(scope="module")
def demo_model(exact_model: LoadedModel) -> LoadedModel:
    return exact_model


GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
# Logits of one token differ between batch shapes by rounding; the values themselves span 30.
TOLERANCE = 1e-3  # of log-probabilities in float32; see exact_model
GRAMMAR = r"""
root ::= "scene:\n  tension: \"" pole " vs " pole "\"\n"
pole ::= [a-z] [a-z ]{0,12} [a-z]
"""
COLOUR = 'root ::= ("red" | "green" | "blue" | "violet") ", " [0-9]{2} "."'
TEXTS = ("Name two feelings.", "Tea or coffee?", "I miss my grandmother.", "What does the sea want?")


@pytest.fixture
def decoder(demo_model: LoadedModel) -> Decoder:
    return Decoder(demo_model)


def prompt(model: LoadedModel, text: str):
    return model.tokenize_segments(
        [("<|im_start|>user\n", True), (text, False), ("<|im_end|>\n<|im_start|>assistant\n", True)]
    )


def test_four_at_once_write_what_each_writes_alone(decoder, demo_model):
    """Greedy under a grammar: the same text, or one that parts where two tokens were nearly equally likely."""
    orders = [Order(prompt(demo_model, text), 40, GREEDY, GRAMMAR) for text in TEXTS]
    together = decoder.write_many(orders)
    lone = Decoder(demo_model)
    same = 0
    for order, done in zip(orders, together, strict=True):
        assert done.complete and re.fullmatch(
            r'scene:\n  tension: "[a-z][a-z ]*[a-z] vs [a-z][a-z ]*[a-z]"\n', done.text
        )
        lone.clear()
        alone = lone.write(order.prompt, max_tokens=40, sampling=GREEDY, gbnf=GRAMMAR)
        if alone.text == done.text:
            same += 1
            continue
        at = next(i for i, (a, b) in enumerate(zip(alone.tokens, done.tokens, strict=False)) if a != b)
        before = np.concatenate([order.prompt, alone.tokens[:at]])
        mine, theirs = lone.score([(before, [done.tokens[at : at + 1], alone.tokens[at : at + 1]])])[0].logprobs
        assert abs(float(mine[0]) - float(theirs[0])) < TOLERANCE, (alone.text, done.text)
    assert same >= 2


def test_grammars_seeds_lengths_and_free_text_mix(decoder, demo_model):
    orders = [
        Order(prompt(demo_model, TEXTS[0]), 40, Sampling(seed=1), GRAMMAR),
        Order(prompt(demo_model, TEXTS[1]), 20, Sampling(seed=2), COLOUR),
        Order(prompt(demo_model, TEXTS[2]), 3, Sampling(seed=3)),
        Order(prompt(demo_model, TEXTS[3]), 15, GREEDY),
        Order(prompt(demo_model, TEXTS[3]), 9, Sampling(seed=5, temperature=1.5), COLOUR),
    ]
    heard = [""] * len(orders)

    def listen(index: int, text: str) -> None:
        heard[index] += text

    done = decoder.write_many(orders, on_text=listen)
    assert [d.text for d in done] == heard
    assert done[0].complete and " vs " in done[0].text
    for answer in (done[1], done[4]):
        assert answer.complete and re.fullmatch(r"(red|green|blue|violet), \d\d\.", answer.text)
    assert len(done[2].tokens) <= 3 and len(done[3].tokens) <= 15
    assert done[2].stop in ("length", "eog")
    for order, answer in zip(orders, done, strict=True):
        assert answer.reused + answer.prefilled == answer.prompt == len(order.prompt)
    assert decoder.stats["leased"] == 0


def test_one_prompt_s_beginning_is_computed_once(decoder, demo_model):
    head = prompt(demo_model, "The story so far: a lamp, a boat, a storm, and a keeper who counts the waves.")
    tails = [demo_model.tokenize(text) for text in (" One", " Two and three", " Four", " Five or six")]
    orders = [Order(np.concatenate([head, tail]), 4, GREEDY) for tail in tails]
    done = decoder.write_many(orders)
    tree = {tuple(order.prompt[: i + 1].tolist()) for order in orders for i in range(len(order.prompt))}
    assert sum(d.prefilled for d in done) == len(tree)
    assert all(d.shared == d.reused for d in done) and done[0].shared == 0
    # One prompt four times: all but the last token, whose logits each one needs.
    decoder.clear()
    done = decoder.write_many([orders[0]] * 4)
    assert sum(d.prefilled for d in done) == len(orders[0].prompt) + 3
    assert len({d.text for d in done}) == 1


def test_the_longest_and_the_shortest_end_on_their_own(decoder, demo_model):
    orders = [Order(prompt(demo_model, text), n, GREEDY) for text, n in zip(TEXTS, (1, 24, 2, 12), strict=True)]
    done = decoder.write_many(orders)
    for order, answer in zip(orders, done, strict=True):
        assert len(answer.tokens) == order.max_tokens or answer.stop == "eog"


def test_a_reader_that_raises_stops_all_and_holds_nothing(decoder, demo_model):
    orders = [Order(prompt(demo_model, text), 30, GREEDY) for text in TEXTS]
    heard: list[int] = []

    def listen(index: int, _: str) -> None:
        if index == 2 and len(heard) > 6:
            raise ValueError("reader gone")
        heard.append(index)

    with pytest.raises(ValueError, match="reader gone"):
        decoder.write_many(orders, on_text=listen)
    assert decoder.stats["leased"] == 0
    assert len(heard) < 60
    again = decoder.write_many(orders)
    assert [d.stop for d in again].count("cancelled") == 0


def test_cancelled_at_any_point_the_next_answer_is_the_same(demo_model):
    """Cancel while others read, write, or are about to: afterwards the greedy answer is what it was."""
    rounds = 200 if os.environ.get("LTM_SOAK") else 20
    decoder = Decoder(demo_model)
    rng = random.Random(7)
    asked = Order(prompt(demo_model, TEXTS[0]), 8, GREEDY, COLOUR)
    expected = decoder.write_many([asked])[0].text
    orders = [Order(prompt(demo_model, text), 30, GREEDY) for text in TEXTS]
    stopped = 0
    for _ in range(rounds):
        if rng.random() < 0.3:
            decoder.clear()
        if rng.random() < 0.5:  # by the clock, anywhere
            timer = threading.Timer(rng.random() * 0.4, decoder.cancel)
            timer.start()
            done = decoder.write_many(orders)
            timer.join()
        else:  # at a given piece of text
            left = [rng.randrange(1, 40)]

            def listen(_: int, __: str, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] == 0:
                    decoder.cancel()

            done = decoder.write_many(orders, on_text=listen)
        decoder.resume()
        assert decoder.stats["leased"] == 0
        stopped += any(d.stop == "cancelled" for d in done)
        assert decoder.write_many([asked])[0].text == expected
    assert stopped > rounds // 4


def test_answers_that_do_not_fit_together_are_refused_with_numbers(decoder, demo_model):
    each = decoder.n_ctx // 4
    orders = [Order(prompt(demo_model, text), each, GREEDY) for text in TEXTS]
    with pytest.raises(ContextFull, match=f"{4 * each}.*{decoder.n_ctx}"):
        decoder.write_many(orders)
    assert decoder.stats["leased"] == 0
    assert decoder.write_many([Order(prompt(demo_model, TEXTS[0]), 2, GREEDY)])[0].tokens.size


def test_more_requests_than_sequences_are_refused(decoder, demo_model):
    order = Order(prompt(demo_model, TEXTS[0]), 1, GREEDY)
    with pytest.raises(InputError, match="17 requests"):
        decoder.write_many([order] * 17)
    assert len(decoder.write_many([order] * 16)) == 16
    assert decoder.write_many([]) == []
    assert decoder.stats["leased"] == 0
