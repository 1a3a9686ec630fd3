"""Forced tokens are what the tokenizer makes of the whole document, whatever follows."""

from __future__ import annotations

import random

import pytest

from ltm_edge.grammar import Matcher

from .conftest import NAMES, effort, examples, template_grammar, vocabulary

pytestmark = pytest.mark.needs_model


def check(matcher: Matcher, document: str) -> tuple[int, int, int]:
    """Walk the tokenizer's own cut; what is forced on the way must continue it. Returns (positions, forced, wrong)."""
    tokens = matcher.vocab.tokenize(document).tolist()
    at = forced = wrong = 0
    while at < len(tokens):
        ahead = matcher.forced_tokens()
        assert ahead.replace == 0
        if len(ahead.tokens):
            expected = tokens[at : at + len(ahead.tokens)]
            if ahead.tokens.tolist() != expected:
                wrong += 1
            forced += len(ahead.tokens)
            for token in expected:
                assert matcher.accept(token)
            at += len(expected)
        else:
            assert matcher.accept(tokens[at]), (document, at)
            at += 1
    assert matcher.is_complete
    return len(tokens), forced, wrong


@pytest.mark.parametrize("name", NAMES)
def test_forced_tokens_are_canonical_on_the_examples(name: str):
    vocab = vocabulary(name)
    positions = forced = 0
    for template in ("mirror", "workbench", "hearth"):
        matcher = Matcher(template_grammar(template), vocab)
        for document in examples(template, "en"):
            matcher.reset()
            seen, ahead, wrong = check(matcher, document)
            assert wrong == 0, document
            positions += seen
            forced += ahead
    assert forced / positions > 0.15, f"{name}: only {forced} of {positions} tokens are forced"


@pytest.mark.parametrize("name", NAMES)
def test_forced_tokens_are_canonical_on_random_documents(name: str):
    vocab = vocabulary(name)
    rng = random.Random(11)
    grammar = template_grammar("mirror")
    matcher = Matcher(grammar, vocab)
    wrong = []
    for _ in range(effort(12)):
        document = grammar.sample_bytes(rng, rng.randrange(0, 400)).decode()
        matcher.reset()
        if check(matcher, document)[2]:
            wrong.append(document)
    assert not wrong, f"{name}: {len(wrong)} documents, such as {wrong[0]!r}"
