"""Saved KV: what comes back is what was saved, and bytes that aren't whole are refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ltm_edge.engine.decoder import Decoder, Sampling
from ltm_edge.engine.model import LoadedModel
from ltm_edge.errors import InputError

pytestmark = pytest.mark.needs_model

GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)


@pytest.fixture
def decoder(demo_model: LoadedModel) -> Decoder:
    return Decoder(demo_model)


def prompt(model: LoadedModel, text: str = "The story so far: a lamp, a boat, a storm."):
    return model.tokenize_segments([("<|im_start|>user\n", True), (text, False), ("<|im_end|>\n", True)])


def test_a_round_trip_gives_the_same_log_probabilities_and_counts(decoder, demo_model):
    tokens = prompt(demo_model)
    longer = np.concatenate([tokens, demo_model.tokenize("More")])
    probe = [demo_model.tokenize(" of the sea")]
    decoder.commit(tokens)
    data, count = decoder.save_state(longer)
    assert count == len(tokens) and data.dtype == np.uint8 and len(data) > 0
    mine = decoder.score([(longer, probe)])[0]

    other = Decoder(demo_model)
    assert other.restore_state(tokens, data)
    theirs = other.score([(longer, probe)])[0]
    assert (theirs.reused, theirs.prefilled) == (mine.reused, mine.prefilled)
    np.testing.assert_array_equal(theirs.logprobs[0], mine.logprobs[0])
    # It may be saved again from there.
    again, count = Decoder(demo_model).save_state(longer)
    assert count == 0 and len(again) == 0
    again, count = other.save_state(tokens)
    assert count == len(tokens) and Decoder(demo_model).restore_state(tokens, again)


def test_nothing_cached_saves_nothing(decoder, demo_model):
    data, count = decoder.save_state(prompt(demo_model))
    assert len(data) == 0 and count == 0 and decoder.stats["leased"] == 0


def test_truncated_bytes_are_refused_and_the_cache_is_as_before(decoder, demo_model):
    tokens = prompt(demo_model)
    kept = prompt(demo_model, "Another text altogether, which stays.")
    source = Decoder(demo_model)
    source.commit(tokens)
    data, _ = source.save_state(tokens)
    decoder.commit(kept)
    before = decoder.stats
    rng = np.random.default_rng(5)
    for size in [0, 1, 3, 4, 8, 12, 64, len(data) // 2, len(data) - 1, *rng.integers(0, len(data), 20).tolist()]:
        assert not decoder.restore_state(tokens, data[:size])
        assert decoder.stats == before
    assert not decoder.restore_state(tokens, data.tobytes() + b"\0")
    assert decoder.stats == before
    # The whole goes in beside what was there.
    assert decoder.restore_state(tokens, data)
    assert decoder.score([(kept, [])])[0].prefilled == 1
    assert decoder.score([(tokens, [])])[0].prefilled == 1


def test_a_state_for_other_tokens_is_refused(decoder, demo_model):
    """Their number is all that can be told here; what they are is the business of the key it is filed under."""
    tokens = prompt(demo_model)
    source = Decoder(demo_model)
    source.commit(tokens)
    data, _ = source.save_state(tokens)
    assert not decoder.restore_state(tokens[:-1], data)
    assert not decoder.restore_state(np.concatenate([tokens, tokens]), data)
    assert not decoder.restore_state(tokens[:0], data)
    with pytest.raises(InputError):
        decoder.restore_state(np.full(len(tokens), 10**7, dtype=np.int32), data)
    assert decoder.stats["sequences"] == decoder.stats["leased"] == 0
    cold = decoder.write(tokens, max_tokens=8, sampling=GREEDY)
    assert cold.reused == 0
    assert cold.text == source.write(tokens, max_tokens=8, sampling=GREEDY).text


def test_a_state_finds_room_in_a_full_context(demo_model):
    """What is cached gives way where the saved text needs its cells."""
    small = dataclasses.replace(demo_model, n_ctx=256)
    tokens = np.concatenate([prompt(demo_model)] * 8)[:140]
    source, target = Decoder(small), Decoder(small)
    source.commit(tokens)
    data, count = source.save_state(tokens)
    assert count == len(tokens)
    target.commit(np.concatenate([prompt(demo_model, "Something else fills it.")] * 20)[:200])
    assert target.restore_state(tokens, data)
    assert target.score([(tokens, [])])[0].prefilled == 1
