"""A vocabulary of one's own, without any model."""

from __future__ import annotations

import numpy as np
import pytest

from ltm_edge.errors import InputError
from ltm_edge.grammar import Grammar, Matcher, Vocab

PIECES = [b"a", b"b", b"ab", b"<pad>", b""]
KINDS = ["text", "text", "text", "excluded", "end"]


def test_tokens_write_their_bytes_and_the_end_ends():
    vocab = Vocab.from_pieces(PIECES, KINDS)
    assert len(vocab) == 5 and vocab.ends.tolist() == [4]
    matcher = Matcher(Grammar.from_gbnf('root ::= "ab"'), vocab)
    assert [matcher.allows(token) for token in range(5)] == [True, False, True, False, False]
    assert matcher.accept(0) and [matcher.allows(token) for token in range(5)] == [False, True, False, False, False]
    assert matcher.accept(1) and [matcher.allows(token) for token in range(5)] == [False] * 4 + [True]
    assert matcher.tokens.tolist() == [0, 1]
    logits = np.zeros(5, np.float32)
    matcher.apply(logits)
    assert np.flatnonzero(np.isfinite(logits)).tolist() == [4]


def test_a_kind_that_is_none_is_named():
    with pytest.raises(InputError, match="found 'control'"):
        Vocab.from_pieces([b"a"], ["control"])
