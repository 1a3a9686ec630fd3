"""The grammars in llama.cpp itself: accepted by its parser, and every document taken token by token to its end."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ltm_edge.schemas.template import smallest_document
from tests.gbnf_oracle import sample_document
from tests.test_grammar_template import NAMES, names_in, oracle

llama_cpp = pytest.importorskip("llama_cpp")

pytestmark = pytest.mark.needs_model


class Vocab:
    """The demo model's vocabulary, without its weights."""

    def __init__(self, path: Path) -> None:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self.model
        self.handle = llama_cpp.llama_model_get_vocab(self.model)

    def tokens(self, text: str) -> list[int]:
        raw = text.encode()
        out = (llama_cpp.llama_token * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self.handle, raw, len(raw), out, len(out), False, False)
        assert count > 0
        return list(out[:count])

    def refused_at(self, gbnf: str, text: str) -> int | None:
        """Index of the first token of `text` (with the end of generation after it) that is refused, or None."""
        sampler = llama_cpp.llama_sampler_init_grammar(self.handle, gbnf.encode(), b"root")
        assert sampler, "llama.cpp's parser refused the grammar"
        one = (llama_cpp.llama_token_data * 1)()
        try:
            tokens = [*self.tokens(text), llama_cpp.llama_vocab_eos(self.handle)]
            for i, token in enumerate(tokens):
                one[0].id, one[0].logit, one[0].p = token, 1.0, 0.0
                array = llama_cpp.llama_token_data_array(data=one, size=1, selected=-1, sorted=False)
                llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
                if one[0].logit == float("-inf"):
                    return i
                if i + 1 < len(tokens):
                    llama_cpp.llama_sampler_accept(sampler, token)
            return None
        finally:
            llama_cpp.llama_sampler_free(sampler)


@pytest.fixture(scope="module")
def vocab(demo_path: Path) -> Iterator[Vocab]:
    loaded = Vocab(demo_path)
    yield loaded
    llama_cpp.llama_model_free(loaded.model)


@pytest.mark.parametrize("name", NAMES)
def test_llama_takes_what_the_grammar_emits(name: str, vocab: Vocab) -> None:
    rng = random.Random(f"llama {name}")
    for i in range(6):
        one = oracle(name, ("en", "ru")[i % 2])
        text, _ = sample_document(one, rng, "longest" if i == 5 else "mixed")
        assert vocab.refused_at(one.gbnf, text) is None, text


@pytest.mark.parametrize("name", NAMES)
def test_llama_ends_where_the_grammar_ends(name: str, vocab: Vocab) -> None:
    one = oracle(name)
    text = smallest_document(one.template, names_in(name, "en"))
    assert vocab.refused_at(one.gbnf, text) is None
    # No end of generation before the last line break, and nothing after the document.
    assert vocab.refused_at(one.gbnf, text[:-1]) == len(vocab.tokens(text[:-1]))
    assert vocab.refused_at(one.gbnf, text + "\n\n\n") is not None
