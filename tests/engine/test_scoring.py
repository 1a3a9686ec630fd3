"""Scoring against the slow way: one token at a time in an empty context."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from ltm_edge.engine.decoder import Decoder, Sampling
from ltm_edge.engine.model import LoadedModel
from ltm_edge.errors import ContextFull, InputError

pytestmark = pytest.mark.needs_model


@pytest.fixture(scope="module")
def demo_model(exact_model: LoadedModel) -> LoadedModel:
    return exact_model


GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
# Logits of one token differ between batch shapes by rounding; the values themselves span 30.
TOLERANCE = 1e-3  # of log-probabilities in float32; see exact_model


@pytest.fixture
def decoder(demo_model: LoadedModel) -> Decoder:
    return Decoder(demo_model)


def prompt(model: LoadedModel, text: str = "Name two feelings that pull against each other."):
    return model.tokenize_segments(
        [("<|im_start|>user\n", True), (text, False), ("<|im_end|>\n<|im_start|>assistant\n", True)]
    )


def one_by_one(decoder: Decoder, tokens, continuation) -> list[float]:
    """The oracle: every token scored on its own, nothing reused."""
    values = []
    for i in range(len(continuation)):
        decoder.clear()
        scored = decoder.score([(np.concatenate([tokens, continuation[:i]]), [continuation[i : i + 1]])])[0]
        assert scored.reused == 0
        values.append(float(scored.logprobs[0][0]))
    return values


def test_a_text_at_once_scores_as_token_by_token(decoder, demo_model):
    tokens = prompt(demo_model)
    text = demo_model.tokenize("Love and fear are two feelings.")
    at_once = decoder.score([(tokens, [text])])[0].logprobs[0]
    assert at_once.dtype == np.float32 and at_once.shape == (len(text),)
    slow = one_by_one(Decoder(demo_model), tokens, text)
    np.testing.assert_allclose(at_once, slow, atol=TOLERANCE)
    assert abs(np.exp(-at_once.mean()) / np.exp(-np.mean(slow)) - 1) < 1e-3  # perplexity


def test_the_whole_vocabulary_sums_to_one_and_its_best_is_the_greedy_token(decoder, demo_model):
    tokens = prompt(demo_model)
    n_vocab = int(demo_model.handle.n_vocab)
    scored = decoder.score([(tokens, [np.array([i], dtype=np.int32) for i in range(n_vocab)])])[0]
    values = np.array([float(v[0]) for v in scored.logprobs])
    assert abs(np.exp(values).sum() - 1) < 1e-4
    decoder.clear()
    written = decoder.write(tokens, max_tokens=1, sampling=GREEDY).tokens
    assert values[written[0]] > values.max() - TOLERANCE


def test_what_is_written_greedily_is_likelier_than_other_words(decoder, demo_model):
    tokens = prompt(demo_model)
    written = decoder.write(tokens, max_tokens=10, sampling=GREEDY).tokens
    other = demo_model.tokenize(" zinc quota pelican seventh hinge loam verb tally")[: len(written)]
    good, bad = decoder.score([(tokens, [written, other])])[0].logprobs
    assert good.mean() > bad.mean() + 2


def test_empty_continuations_and_none(decoder, demo_model):
    empty = np.zeros(0, dtype=np.int32)
    one = demo_model.tokenize("A")
    scored = decoder.score([(prompt(demo_model), [empty, one, empty]), (prompt(demo_model, "Tea?"), [])])
    assert [len(v) for v in scored[0].logprobs] == [0, len(one), 0] and scored[1].logprobs == ()
    assert decoder.score([]) == []
    with pytest.raises(InputError, match="empty"):
        decoder.score([(empty, [one])])
    with pytest.raises(InputError, match="vocabulary"):
        decoder.score([(prompt(demo_model), [np.array([10**7], dtype=np.int32)])])
    assert decoder.stats["leased"] == 0


def test_more_requests_than_sequences(decoder, demo_model):
    """34 prompts in a context of 16 sequences: each as alone, and none computed twice."""
    requests = [
        (prompt(demo_model, f"{i} ships"), [demo_model.tokenize(" Yes, they do"), demo_model.tokenize(" No")])
        for i in range(34)
    ]
    together = decoder.score(requests)
    assert len(together) == 34 and decoder.stats["leased"] == 0
    alone = Decoder(demo_model)
    for i in (0, 16, 33):
        alone.clear()
        for mine, theirs in zip(alone.score([requests[i]])[0].logprobs, together[i].logprobs, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=TOLERANCE)
    for scored, (tokens, _) in zip(together, requests, strict=True):
        assert scored.reused + scored.prefilled == len(tokens)
    # All but the first share the beginning.
    assert all(scored.reused >= 3 for scored in together[1:])


def test_many_continuations_of_one_prompt(decoder, demo_model):
    tokens = prompt(demo_model)
    texts = [demo_model.tokenize(" ".join(["river"] * n)) for n in range(1, 17)]
    scored = decoder.score([(tokens, texts)])[0]
    for text, values in zip(texts, scored.logprobs, strict=True):
        assert values.shape == (len(text),) and np.isfinite(values).all() and (values <= 0).all()
        short = min(len(text), len(texts[0]))
        np.testing.assert_allclose(values[:short], scored.logprobs[0][:short], atol=TOLERANCE)
    again = decoder.score([(tokens, texts[:1])])[0]
    assert again.prefilled == 1 and again.reused == len(tokens) - 1


def test_a_continuation_longer_than_a_batch_of_logits(decoder, demo_model):
    text = np.concatenate([demo_model.tokenize("The rain falls on the roof all night. ")] * 30)[:200]
    values = decoder.score([(prompt(demo_model), [text])])[0].logprobs[0]
    assert values.shape == (200,) and np.isfinite(values).all()
    tail = decoder.score([(np.concatenate([prompt(demo_model), text[:190]]), [text[190:]])])[0].logprobs[0]
    np.testing.assert_allclose(values[190:], tail, atol=TOLERANCE)


def test_continuations_that_fit_one_by_one_are_scored_one_by_one(demo_model):
    decoder = Decoder(dataclasses.replace(demo_model, n_ctx=256))
    word = demo_model.tokenize(" rain")[:1]
    tokens = np.concatenate([prompt(demo_model), np.repeat(word, decoder.n_ctx - 110)])
    texts = [np.repeat(word, n) for n in (70, 60, 65, 50)]
    scored = decoder.score([(tokens, texts)])[0]
    assert [len(v) for v in scored.logprobs] == [70, 60, 65, 50]
    np.testing.assert_allclose(scored.logprobs[0][:60], scored.logprobs[1], atol=TOLERANCE)


def test_what_cannot_fit_is_refused_with_numbers(decoder, demo_model):
    text = np.repeat(demo_model.tokenize(" rain")[:1], decoder.n_ctx)
    with pytest.raises(ContextFull, match=str(decoder.n_ctx)):
        decoder.score([(prompt(demo_model), [text])])
    assert len(decoder.score([(prompt(demo_model), [text[:3]])])) == 1


def test_cancelled_scoring_returns_nothing_and_holds_nothing(decoder, demo_model):
    requests = [(prompt(demo_model, f"{i} ships"), [demo_model.tokenize(" Yes, they do")]) for i in range(20)]
    decoder.cancel()
    assert decoder.score(requests) == []
    assert decoder.stats["leased"] == 0
    for delay in (0.02, 0.1, 0.3):
        decoder.clear()
        timer = threading.Timer(delay, decoder.cancel)
        timer.start()
        scored = decoder.score(requests)
        timer.join()
        decoder.resume()
        assert len(scored) in (0, 20) and decoder.stats["leased"] == 0
    after = decoder.score(requests[:1])[0].logprobs[0]
    np.testing.assert_allclose(after, Decoder(demo_model).score(requests[:1])[0].logprobs[0], atol=TOLERANCE)
