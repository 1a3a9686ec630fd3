"""Grammar, Vocab, Matcher: what may come next, over the tokens of a vocabulary.

Thin wrappers of the engine in csrc/grammar. Grammars and vocabularies are immutable and may be shared by threads; a
matcher belongs to one thread at a time, and cloning one is cheap.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm_edge.errors import InputError
from ltm_edge.grammar.template import template_gbnf
from ltm_edge.grammar.vocab_cache import cached_vocab
from ltm_edge.native import core, forward_log
from ltm_edge.schemas.template import Template

__all__ = ["ForcedTokens", "Grammar", "Matcher", "Vocab"]

Mask = npt.NDArray[np.uint32]
Tokens = npt.NDArray[np.int32]

_KINDS = {"text": 0, "excluded": 1, "end": 2}


class Grammar:
    """GBNF text, read, checked and compiled. Immutable."""

    def __init__(self, handle: Any) -> None:
        """Use :meth:`from_gbnf` or :meth:`from_template`."""
        self._handle = handle

    @classmethod
    def from_gbnf(cls, text: str, root: str = "root") -> Grammar:
        """The grammar in GBNF (llama.cpp's language, without token references).

        Raises:
            GrammarError: with line, column, what was found and what was expected; or which limit it breaks.
        """
        return cls(core().Grammar(text, root))

    @classmethod
    def from_template(cls, template: Template, names: Mapping[str, str] | None = None) -> Grammar:
        """The grammar of a scene template; ``names`` gives archetypes' names in the answer's language by id."""
        return cls.from_gbnf(template_gbnf(template, names))

    @property
    def handle(self) -> Any:
        """The native grammar."""
        return self._handle

    @property
    def text(self) -> str:
        """The GBNF text."""
        return str(self._handle.text)

    @property
    def is_regular(self) -> bool:
        """True if no rule reaches itself: the automaton is then finite up to its counters."""
        return bool(self._handle.is_regular)

    @property
    def unused_rules(self) -> tuple[str, ...]:
        """Rules that the root never reaches."""
        return tuple(self._handle.unused_rules)

    def accepts(self, document: bytes | str) -> bool:
        """True if ``document`` (UTF-8) is a whole document of the grammar."""
        return bool(self._handle.accepts(_bytes(document)))

    def valid_prefix(self, document: bytes | str) -> int:
        """Number of leading bytes that some document of the grammar begins with."""
        return int(self._handle.valid_prefix(_bytes(document)))

    def sample_bytes(self, rng: random.Random | int | None = None, length: int = 200) -> bytes:
        """A random document: random choices for about ``length`` bytes, then the shortest way to the end.

        The same generator state (or number) gives the same document on every platform.
        """
        seed = rng if isinstance(rng, int) else (rng or random.Random()).getrandbits(64)
        return bytes(self._handle.sample_bytes(seed & (1 << 64) - 1, length))

    def shortest(self) -> bytes:
        """The document that takes the fewest bytes."""
        return bytes(self._handle.shortest())


class Vocab:
    """The bytes that every token writes, as a trie. Immutable."""

    def __init__(self, handle: Any, path: Path | None = None, tokenizer: Any = None) -> None:
        """Use :meth:`from_gguf` or :meth:`from_pieces`."""
        self._handle = handle
        self._path = path
        self._tokenizer = tokenizer  # loaded when it is first needed: a large one takes a second

    @classmethod
    def from_gguf(cls, path: str | Path, *, cache: bool = True) -> Vocab:
        """The vocabulary of a GGUF file (its weights are not read), with its tokenizer.

        Args:
            path: a model or a vocabulary-only file.
            cache: use the cache folder, see :mod:`ltm_edge.grammar.vocab_cache`.

        Raises:
            ModelError: llama.cpp can't read it.
        """
        file = Path(path)
        loaded: list[Any] = []

        def build() -> Any:
            loaded.append(_load_tokenizer(file))
            return loaded[0].grammar_vocab()

        handle = cached_vocab(file, build) if cache else build()
        return cls(handle, file, loaded[0] if loaded else None)

    @classmethod
    def from_pieces(cls, pieces: Sequence[bytes], kinds: Iterable[str]) -> Vocab:
        """A vocabulary of one's own: the bytes of each token, and for each ``text``, ``excluded`` or ``end``."""
        try:
            codes = np.array([_KINDS[kind] for kind in kinds], dtype=np.uint8)
        except KeyError as error:
            raise InputError(f"vocabulary: a token is text, excluded or end, found {error.args[0]!r}") from None
        return cls(core().Vocab(list(pieces), codes))

    @property
    def handle(self) -> Any:
        """The native vocabulary."""
        return self._handle

    def __len__(self) -> int:
        return len(self._handle)

    @property
    def ends(self) -> Tokens:
        """Tokens that end a generation, int32 [n]."""
        ends: Tokens = self._handle.ends
        return ends

    def piece(self, token: int) -> bytes:
        """The bytes that a token writes."""
        return bytes(self._handle.piece(token))

    def tokenize(self, text: bytes | str) -> Tokens:
        """Tokens of a text as it stands in the middle of a longer one, int32 [n].

        Raises:
            InputError: the vocabulary was made from pieces and has no tokenizer.
        """
        if self._tokenizer is None:
            if self._path is None:
                raise InputError("this vocabulary has no tokenizer; read it with Vocab.from_gguf")
            self._tokenizer = _load_tokenizer(self._path)
        tokens: Tokens = self._tokenizer.tokenize_inner(_bytes(text))
        return tokens


@dataclass(frozen=True, slots=True)
class ForcedTokens:
    """Tokens that need no sampling.

    Attributes:
        replace: how many of the last accepted tokens they stand in for.
        tokens: int32 [n].
    """

    replace: int
    tokens: Tokens


class Matcher:
    """A grammar's state along one decode."""

    def __init__(self, grammar: Grammar, vocab: Vocab) -> None:
        """Start at the beginning of a document. Masks computed on the way are kept for clones."""
        self.grammar = grammar
        self.vocab = vocab
        self._cache = core().MaskCache(grammar.handle, vocab.handle)
        self._handle = core().Matcher(self._cache)

    def clone(self) -> Matcher:
        """An independent matcher at the same place, over the same masks."""
        other = Matcher.__new__(Matcher)
        other.grammar, other.vocab, other._cache = self.grammar, self.vocab, self._cache
        other._handle = self._handle.clone()
        return other

    @property
    def statistics(self) -> dict[str, int]:
        """Masks kept, their bytes, automaton shapes and transitions, all so far."""
        return dict(self._cache.statistics)

    def mask(self, budget: int | None = None) -> Mask:
        """Tokens allowed next: uint32 [ceil(n_vocab / 32)], bit ``t & 31`` of word ``t >> 5``; read-only.

        End tokens are allowed exactly when the document is complete. With a budget, only tokens after which a complete
        document is reached within ``budget - 1`` further ones (end tokens cost nothing); that never runs dry as long as
        the first budget was at least :attr:`cost_to_end`.
        """
        words: Mask = self._handle.mask(budget)
        return words

    def apply(self, logits: npt.NDArray[np.float32], budget: int | None = None) -> int:
        """Set the logits (float32 [n_vocab], in place) of refused tokens to -inf; returns how many are left."""
        return int(self._handle.apply(logits, budget))

    def allows(self, token: int) -> bool:
        """True if ``token`` may come next."""
        return token >= 0 and bool(self._handle.allows(token))

    def accept(self, token: int) -> bool:
        """Take a token; False, and nothing changes, if it is not allowed."""
        return token >= 0 and bool(self._handle.accept(token))

    def rollback(self, n: int) -> None:
        """Take back the last ``n`` tokens. Raises InputError if there are fewer."""
        if n < 0:
            raise InputError(f"matcher: can't take back {n} tokens")
        self._handle.rollback(n)

    def reset(self) -> None:
        """Go back to the beginning."""
        self._handle.reset()

    def validate(self, tokens: Sequence[int] | Tokens) -> int:
        """How many of these tokens, in order, would be accepted."""
        return int(self._handle.validate(np.asarray(tokens, dtype=np.int32)))

    def forced_bytes(self) -> bytes:
        """Bytes that come next in every document that begins like this one."""
        return bytes(self._handle.forced_bytes())

    def forced_tokens(
        self,
        may_replace: int = 0,
        budget: int | None = None,
        tokenize: Callable[[bytes], Tokens] | None = None,
    ) -> ForcedTokens:
        """The tokens in which the tokenizer would write the forced bytes whatever follows.

        A token that a longer one could replace once more text is there is held back.

        Args:
            may_replace: how many of the last accepted tokens may be recut (a sampled `"` where the tokenizer writes a
                quote and a line break as one token).
            budget: tokens that may still be written; stops before the end could not be reached.
            tokenize: cuts bytes as in the middle of a text; None: the vocabulary's own tokenizer.
        """
        replace, tokens = self._handle.forced_tokens(tokenize or self.vocab.tokenize, may_replace, budget)
        return ForcedTokens(int(replace), tokens)

    @property
    def tokens(self) -> Tokens:
        """The tokens accepted so far, int32 [n]."""
        tokens: Tokens = self._handle.tokens
        return tokens

    @property
    def cost_to_end(self) -> int:
        """Tokens that suffice to end from here, end token not counted; 0 if the document is complete."""
        return int(self._handle.cost_to_end)

    @property
    def is_complete(self) -> bool:
        """True if the document may end here."""
        return bool(self._handle.is_complete)

    @property
    def is_closed(self) -> bool:
        """True if nothing may follow but the end."""
        return bool(self._handle.is_closed)

    @property
    def finished(self) -> bool:
        """True after an end token."""
        return bool(self._handle.finished)


def _load_tokenizer(path: Path) -> Any:
    """The native model of a GGUF file without its weights."""
    native = core()
    options = native.ModelOptions()
    options.path = str(path)
    options.vocab_only = True
    try:
        return native.Model.load(options)
    finally:
        forward_log()


def _bytes(text: bytes | str) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
