"""Masks against llama.cpp's own grammar sampler, token by token, over whole documents and real vocabularies."""

from __future__ import annotations

import codecs
import ctypes

import numpy as np
import pytest

from ltm_edge.grammar import Grammar, Matcher, Vocab

from .conftest import NAMES, examples, template_grammar, vocabulary, vocabulary_path

pytestmark = pytest.mark.needs_model

# Texts that a recursing grammar takes, to compare the pushdown form as well.
JSON = r"""
root ::= object
object ::= "{" ws ( pair ( "," ws pair )* )? "}" ws
pair ::= string ":" ws value
value ::= object | array | string | number | "true" ws | "false" ws | "null" ws
array ::= "[" ws ( value ( "," ws value )* )? "]" ws
string ::= "\"" ( [^"\\\x00-\x1F] | "\\" ["\\/bfnrt] )* "\"" ws
number ::= "-"? [0-9]+ ( "." [0-9]+ )? ws
ws ::= [ \n]{0,4}
"""


EXCLUDED = 1  # a native vocabulary's kind of control tokens


class LlamaGrammar:
    """llama.cpp's sampler as an oracle: one full pass over the vocabulary for each mask."""

    def __init__(self, name: str, gbnf: str) -> None:
        import llama_cpp

        self.api = llama_cpp
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(vocabulary_path(name)).encode(), params)
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.n = llama_cpp.llama_vocab_n_tokens(vocab)
        self.sampler = llama_cpp.llama_sampler_init_grammar(vocab, gbnf.encode(), b"root")
        self.data = (llama_cpp.llama_token_data * self.n)()
        self.view = np.frombuffer(self.data, dtype=np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")]))

    def allowed(self) -> np.ndarray:
        self.view["id"] = np.arange(self.n)
        self.view["logit"] = 0.0
        array = self.api.llama_token_data_array(
            data=ctypes.cast(self.data, ctypes.POINTER(self.api.llama_token_data)),
            size=self.n,
            selected=-1,
            sorted=False,
        )
        self.api.llama_sampler_apply(self.sampler, ctypes.byref(array))
        return np.asarray(self.view["logit"] > -1e30)

    def accept(self, token: int) -> None:
        self.api.llama_sampler_accept(self.sampler, token)

    def close(self) -> None:
        self.api.llama_sampler_free(self.sampler)
        self.api.llama_model_free(self.model)


def bits(matcher: Matcher, n: int) -> np.ndarray:
    return np.unpackbits(matcher.mask().view(np.uint8), bitorder="little")[:n].astype(bool)


def begins_text(prefix: bytes) -> bool:
    """True if some UTF-8 text begins with these bytes."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(prefix)
    except UnicodeDecodeError:
        return False
    return True


def compare(name: str, grammar: Grammar, document: str, vocab: Vocab) -> int:
    """Walk a document; fail at the first place where the masks differ. Returns the number of masks compared.

    In two places llama.cpp is more generous than right, and ours must refuse: it takes control tokens for the text that
    they are spelled with (a model could write `<|im_end|>` into a slot as one token), and it lets a negated class take
    bytes that no UTF-8 text holds (0xF5 and above, overlong forms).
    """
    oracle = LlamaGrammar(name, grammar.text)
    try:
        n = len(vocab)
        matcher = Matcher(grammar, vocab)
        tokens = vocab.tokenize(document).tolist()
        assert b"".join(vocab.piece(t) for t in tokens).decode() == document
        written = b""
        for position in range(len(tokens) + 1):
            ours, theirs = bits(matcher, n), oracle.allowed()
            wrong = [
                (token, vocab.piece(token), bool(ours[token]))
                for token in np.flatnonzero(ours != theirs).tolist()
                if ours[token] or (vocab.handle.kind(token) != EXCLUDED and begins_text(written + vocab.piece(token)))
            ]
            assert not wrong, f"{name}, token {position} of {document!r}: {len(wrong)} differ: {wrong[:5]}"
            if position < len(tokens):
                assert matcher.accept(tokens[position])
                oracle.accept(tokens[position])
                written += vocab.piece(tokens[position])
        assert matcher.is_complete
        return len(tokens) + 1
    finally:
        oracle.close()


@pytest.mark.parametrize("name", NAMES)
def test_masks_equal_llama_cpp_over_a_scene(name: str):
    vocab = vocabulary(name)
    compared = compare(name, template_grammar("mirror"), examples("mirror", "en")[0], vocab)
    assert compared > 60


@pytest.mark.parametrize("name", ["smollm2", "llama-spm", "phi-3"])
def test_masks_equal_llama_cpp_in_cyrillic_and_code(name: str):
    vocab = vocabulary(name)
    compare(name, template_grammar("mirror", "ru"), examples("mirror", "ru")[0], vocab)
    compare(name, template_grammar("workbench"), examples("workbench", "en")[0], vocab)


@pytest.mark.parametrize("name", ["smollm2", "llama-spm"])
def test_masks_equal_llama_cpp_in_a_recursing_grammar(name: str):
    grammar = Grammar.from_gbnf(JSON)
    assert not grammar.is_regular
    document = '{"a": [1, {"b": "x\\n"}, [true, null]], "имя": "日本🌱", "c": -3.5}'
    compare(name, grammar, document, vocabulary(name))
