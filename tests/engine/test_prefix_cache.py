"""The prefix cache on the real demo model: nothing is computed twice, and what is reused is what would be computed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ltm_edge.engine.decoder import Decoder, Order, Sampling
from ltm_edge.engine.model import LoadedModel

pytestmark = pytest.mark.needs_model


@pytest.fixture(scope="module")
def demo_model(exact_model: LoadedModel) -> LoadedModel:
    return exact_model


GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
# Logits of one token differ between batch shapes by rounding, and the cache is F16; the values themselves span 30.
TOLERANCE = 1e-3  # of log-probabilities in float32; see exact_model


@pytest.fixture
def decoder(demo_model: LoadedModel) -> Decoder:
    return Decoder(demo_model)


def turn(model: LoadedModel, text: str):
    return model.tokenize_segments(
        [("<|im_start|>user\n", True), (text, False), ("<|im_end|>\n<|im_start|>assistant\n", True)]
    )


def test_reused_and_prefilled_make_up_the_prompt(decoder, demo_model):
    for text in ("Tea.", "Tea or coffee?", "Tea or coffee or water?", "Rain"):
        done = decoder.write(turn(demo_model, text), max_tokens=6, sampling=GREEDY)
        assert done.prompt == len(turn(demo_model, text)) == done.reused + done.prefilled
        again = decoder.write(turn(demo_model, text), max_tokens=6, sampling=GREEDY)
        assert again.prefilled <= 1 and again.reused == done.prompt - 1
    assert decoder.stats["leased"] == 0


def test_the_next_turn_prefills_only_what_is_new(decoder, demo_model):
    """Tokens prefilled twice: none, but for the last one written, whose KV no turn has needed yet."""
    prompt = turn(demo_model, "Tell me of the sea.")
    for text in ("And of the hills?", "Of the wind?", "Of snow?"):
        done = decoder.write(prompt, max_tokens=12, sampling=GREEDY)
        known = np.concatenate([prompt, done.tokens])
        new = np.concatenate([demo_model.tokenize("<|im_end|>\n", special=True), turn(demo_model, text)])
        prompt = np.concatenate([known, new])
        decoder.commit(known)
        following = decoder.score([(prompt, [])])[0]
        assert following.prefilled == len(new) and following.reused == len(known)


def test_without_a_commit_only_the_last_token_written_is_missing(decoder, demo_model):
    prompt = turn(demo_model, "Tell me of the sea.")
    done = decoder.write(prompt, max_tokens=12, sampling=GREEDY)
    longer = np.concatenate([prompt, done.tokens, turn(demo_model, "More.")])
    following = decoder.write(longer, max_tokens=2, sampling=GREEDY)
    assert following.reused >= len(prompt) + len(done.tokens) - 1


def test_a_commit_of_what_is_there_computes_nothing(decoder, demo_model):
    tokens = turn(demo_model, "Who keeps the light in the tower?")
    first = decoder.commit(tokens)
    second = decoder.commit(tokens)
    assert (first.reused, first.prefilled, first.complete) == (0, len(tokens), True)
    assert (second.reused, second.prefilled, second.complete) == (len(tokens), 0, True)
    assert decoder.stats["sequences"] == 1


def test_a_cancelled_commit_keeps_what_it_computed(decoder, demo_model):
    tokens = np.concatenate([turn(demo_model, "Who keeps the light in the tower?")] * 4)
    decoder.cancel()
    done = decoder.commit(tokens)
    assert not done.complete and done.prefilled < len(tokens)
    assert decoder.stats["leased"] == 0
    again = decoder.commit(tokens)
    assert again.complete and again.reused == done.prefilled


def test_reused_kv_gives_the_log_probabilities_of_a_cold_prefill(decoder, demo_model):
    """Prefixes of every kind (a prompt's, an answer's, cut inside an answer) against a context that knows nothing."""
    prompt = turn(demo_model, "Name two feelings that pull against each other.")
    written = decoder.write(prompt, max_tokens=24, sampling=GREEDY).tokens
    probe = demo_model.tokenize(" and then the tide came in")
    cold = Decoder(demo_model)
    for cut in (5, len(prompt), len(prompt) + 1, len(prompt) + 11, len(prompt) + 24):
        tokens = np.concatenate([prompt, written])[:cut]
        warm = decoder.score([(tokens, [probe])])[0]
        assert warm.reused >= cut - 2
        cold.clear()
        fresh = cold.score([(tokens, [probe])])[0]
        assert fresh.reused == 0
        np.testing.assert_allclose(warm.logprobs[0], fresh.logprobs[0], atol=TOLERANCE)


def test_many_texts_come_and_go_and_no_place_is_lost(decoder, demo_model):
    """More texts than sequences: the oldest give way, the spine stays."""
    spine = turn(demo_model, "The story so far: a lamp, a boat, a storm.")
    decoder.commit(spine)
    for i in range(24):
        done = decoder.write(turn(demo_model, f"{i} ships"), max_tokens=2, sampling=GREEDY)
        assert done.reused + done.prefilled == done.prompt
    assert decoder.stats["leased"] == 0 and decoder.stats["sequences"] <= 16
    assert decoder.commit(spine).reused == len(spine)


def test_a_full_context_gives_its_oldest_texts_away(demo_model):
    """Prompts that fill the context one after the other: each is written, and reads as in an empty one."""
    decoder = Decoder(dataclasses.replace(demo_model, n_ctx=256))
    piece = turn(demo_model, "Rain falls on the roof all night, and nobody sleeps.")
    size = decoder.n_ctx * 2 // 5
    words = [demo_model.tokenize(word) for word in (" one", " two", " three", " four")]
    for word in words:
        long = np.concatenate([word] + [piece] * (size // len(piece)))
        done = decoder.write(long, max_tokens=4, sampling=GREEDY)
        assert done.reused == 0 and done.prefilled == len(long)
    cold = Decoder(dataclasses.replace(demo_model, n_ctx=256))
    probe = [demo_model.tokenize(" yes it does")]
    warm = decoder.score([(long, probe)])[0]
    assert warm.reused == len(long) - 1
    np.testing.assert_allclose(warm.logprobs[0], cold.score([(long, probe)])[0].logprobs[0], atol=TOLERANCE)


def test_a_rebased_text_is_close_to_a_fresh_one(decoder, demo_model):
    head = turn(demo_model, "You are a keeper of lamps.")
    old = turn(demo_model, "It rained for a week.")
    rest = turn(demo_model, "The boats came home at noon, all but one.")
    tokens = np.concatenate([head, old, rest])
    decoder.commit(tokens)
    assert decoder.rebase(tokens, len(head), len(old)) == len(rest)
    left = np.concatenate([head, rest])
    probe = demo_model.tokenize("The")
    warm = decoder.score([(left, [probe])])[0]
    assert warm.reused == len(left) - 1
    fresh = Decoder(demo_model).score([(left, [probe])])[0]
    assert abs(float(warm.logprobs[0][0]) - float(fresh.logprobs[0][0])) < 3.0
    assert decoder.rebase(np.concatenate([rest, head]), 1, 4) == 0  # nothing cached begins like that


def test_answers_over_one_spine_share_it(decoder, demo_model):
    spine = turn(demo_model, "The story so far: a lamp, a boat, a storm.")
    decoder.commit(spine)
    orders = [
        Order(np.concatenate([spine, demo_model.tokenize(text)]), 4, GREEDY) for text in (" One", " Two three", " Four")
    ]
    for order, done in zip(orders, decoder.write_many(orders), strict=True):
        assert done.reused == len(spine) and done.prefilled == len(order.prompt) - len(spine)
