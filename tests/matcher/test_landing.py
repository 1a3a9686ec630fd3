"""Decodes with random logits and random budgets: every one ends complete within its budget, and loads as YAML."""

from __future__ import annotations

import random

import numpy as np
import pytest
import yaml

from ltm_edge.grammar import Grammar, Matcher
from ltm_edge.scene.record import Scene

from .conftest import effort, overlay, template_grammar, vocabulary

pytestmark = pytest.mark.needs_model


def decode(matcher: Matcher, budget: int, noise: np.ndarray, pick: random.Random, *, force: bool) -> str:
    """Choose among the allowed tokens at random until the document ends; ``noise`` is float32 [k, n_vocab]."""
    matcher.reset()
    vocab = matcher.vocab
    logits = np.empty(len(vocab), dtype=np.float32)
    used = 0
    while True:
        if force:
            ahead = matcher.forced_tokens(budget=budget - used)
            for token in ahead.tokens.tolist():
                assert matcher.accept(token)
            used += len(ahead.tokens)
        if matcher.is_closed or used == budget:
            break
        np.copyto(logits, noise[pick.randrange(len(noise))])
        assert matcher.apply(logits, budget - used) > 0, "a dead end"
        token = int(logits.argmax())
        assert matcher.accept(token)
        if matcher.finished:
            break
        used += 1
        assert used <= budget
    assert matcher.finished or matcher.is_complete
    return b"".join(vocab.piece(t) for t in matcher.tokens.tolist() if t not in vocab.ends).decode()


@pytest.mark.parametrize("name", ["smollm2", "llama-spm"])
def test_random_decodes_land(name: str):
    vocab = vocabulary(name)
    pick = random.Random(5)
    noise = np.random.default_rng(5).standard_normal((199, len(vocab)), dtype=np.float32)
    templates = [(t, lang) for t in overlay().templates for lang in ("en", "ru")]
    for template, lang in templates:
        grammar = template_grammar(template, lang)
        matcher = Matcher(grammar, vocab)
        least = matcher.cost_to_end
        for i in range(effort(3)):
            budget = least if i == 0 else pick.randrange(least, 401)
            document = decode(matcher, budget, noise, pick, force=bool(i % 2))
            assert grammar.accepts(document)
            scene = Scene.from_yaml(document)
            assert yaml.safe_load(document)["scene"]["response"].rstrip("\n") == scene.response


def test_one_token_less_than_the_cost_is_a_dead_end_that_is_said():
    vocab = vocabulary("smollm2")
    matcher = Matcher(Grammar.from_gbnf('root ::= "abcdefgh" [0-9]{4}'), vocab)
    assert matcher.apply(np.zeros(len(vocab), dtype=np.float32), 0) == 0
    least = matcher.cost_to_end
    assert 1 < least <= 12
    assert matcher.apply(np.zeros(len(vocab), dtype=np.float32), least) > 0
