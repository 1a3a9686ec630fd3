"""LoadedModel: a GGUF model in memory and its vocabulary."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gguf_tools.summary import parameter_count
from ltm_edge.engine.offload import DeviceInfo, ModelFacts, OffloadPlan, plan_offload
from ltm_edge.engine.options import DEFAULT_CTX, EngineOptions, bounded_threads
from ltm_edge.engine.process import same_process
from ltm_edge.errors import ModelError
from ltm_edge.grammar.vocab_cache import cached_vocab
from ltm_edge.native import core, forward_log
from ltm_edge.scene.vocabulary import Tokens

__all__ = ["LoadedModel", "Tokens", "list_devices"]

_CTX_STEP = 256  # llama.cpp rounds a context up to a multiple of it
_MAX_GRAMMARS = 48  # templates times languages, with room for a bundle's own


def list_devices() -> tuple[DeviceInfo, ...]:
    """Compute devices that llama.cpp sees."""
    return tuple(DeviceInfo(d.name, d.description, d.type, d.memory_free, d.memory_total) for d in core().devices())


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A GGUF model in memory, shared by any number of contexts and threads.

    Attributes:
        handle: the native model.
        path: the file it was read from.
        options: how it was asked for.
        plan: what runs where.
        facts: its measures, as the file's header gives them.
        n_ctx: tokens of context for each of its contexts.
        threads: CPU threads for each of its contexts.
        metadata: the GGUF's scalar metadata as text.
        special_texts: how the tokens that are never plain text are spelled.
        notices: what the user should be told about loading.
    """

    handle: Any
    path: Path
    options: EngineOptions
    plan: OffloadPlan
    facts: ModelFacts
    n_ctx: int
    threads: int
    metadata: Mapping[str, str]
    special_texts: tuple[str, ...]
    notices: tuple[str, ...]
    _grammars: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _grammars_lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def load(cls, path: Path, options: EngineOptions, facts: ModelFacts, n_ctx_train: int) -> LoadedModel:
        """Load the weights. Raises ModelError where llama.cpp refuses, InputError for an unknown device."""
        same_process()
        native = core()
        notices: list[str] = []
        threads = bounded_threads(options.threads)
        if options.threads is not None and threads < options.threads:
            notices.append(f"{threads} threads: {options.threads} are more than the processors this process may use")
        n_ctx = options.ctx if options.ctx is not None else min(DEFAULT_CTX, n_ctx_train or DEFAULT_CTX)
        n_ctx = -(-n_ctx // _CTX_STEP) * _CTX_STEP
        if n_ctx_train and n_ctx - n_ctx_train >= _CTX_STEP:
            notices.append(f"context {n_ctx} is more than the {n_ctx_train} tokens this model was trained on")
        plan = plan_offload(
            options.gpu_layers, options.device, list_devices(), facts, n_ctx=n_ctx, kv_type=options.kv_type
        )
        if plan.notice:
            notices.append(plan.notice)
        wanted = native.ModelOptions()
        wanted.path = str(path)
        wanted.n_gpu_layers = plan.layers
        wanted.devices = list(plan.devices)
        try:
            handle = native.Model.load(wanted)
        finally:
            forward_log()
        if not handle.has_decoder:
            raise ModelError(f"{path}: not a chat model: it has no decoder; give a text-generation GGUF")
        return cls(
            handle=handle,
            path=path,
            options=options,
            plan=plan,
            facts=facts,
            n_ctx=n_ctx,
            threads=threads,
            metadata=handle.metadata(),
            special_texts=tuple(text for _, text in handle.special_tokens() if text),
            notices=tuple(notices),
        )

    @property
    def description(self) -> str:
        """Architecture, size and quantisation, such as ``llama 135 M Q4_1``."""
        # llama.cpp's own words, but for the size: it names that after the number of layers ("256M" of these 135 M).
        arch, _, rest = str(self.handle.description).partition(" ")
        return f"{arch} {parameter_count(int(self.handle.n_params))} {rest.partition(' ')[2]}".rstrip()

    @property
    def chat_template(self) -> str | None:
        """The GGUF's own Jinja chat template, or None."""
        return str(self.handle.chat_template()) or None

    def token_text(self, token: int) -> str:
        """Text of one token, control tokens spelled out; empty for none (-1)."""
        return bytes(self.handle.piece(token, True)).decode("utf-8", "replace") if token >= 0 else ""

    @property
    def bos(self) -> str:
        """Text of the beginning-of-sequence token, empty if there is none."""
        return self.token_text(self.handle.bos)

    @property
    def eos(self) -> str:
        """Text of the end-of-sequence token, empty if there is none."""
        return self.token_text(self.handle.eos)

    def tokenize(self, text: str | bytes, *, special: bool = False) -> Tokens:
        """Tokens of ``text``, int32 [n]; ``special`` reads control tokens spelled out in it.

        Raises:
            ModelError: the model's vocabulary has no token for a character of it, nor for its bytes.
        """
        try:
            tokens: Tokens = self.handle.tokenize(text, False, special)
        except IndexError:  # llama.cpp looked for the token of a byte
            raise ModelError(
                f"{self.path}: its vocabulary has no tokens for some of the text; it is damaged: fetch it again"
            ) from None
        return tokens

    def tokenize_segments(self, segments: Iterable[tuple[str, bool]]) -> Tokens:
        """Tokens of a prompt made of (text, special) pieces, int32 [n].

        Control tokens are read only where ``special`` is set: what a user or the model wrote never becomes one. The
        beginning-of-sequence token is put in front if the model wants one and the prompt has none.
        """
        parts = [self.tokenize(text, special=special) for text, special in segments if text]
        bos = int(self.handle.bos)
        if self.handle.add_bos and bos >= 0 and not (parts and len(parts[0]) and int(parts[0][0]) == bos):
            parts.insert(0, np.array([bos], dtype=np.int32))
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)

    def compile_grammar(self, gbnf: str) -> Any:
        """The grammar compiled for this vocabulary; the last few are kept with the masks computed so far.

        Raises:
            GrammarError: it does not parse, or is larger than the engine's limits.
        """
        with self._grammars_lock:
            compiled = self._grammars.pop(gbnf, None)
            if compiled is None and not self._grammars:
                # The first grammar: give the model its vocabulary from the cache folder, where it stands there.
                self.handle.use_grammar_vocab(cached_vocab(self.path, self.handle.grammar_vocab))
        if compiled is None:
            compiled = self.handle.compile_grammar(gbnf)
        with self._grammars_lock:
            self._grammars[gbnf] = compiled
            while len(self._grammars) > _MAX_GRAMMARS:
                del self._grammars[next(iter(self._grammars))]
        return compiled

    def load_adapter(self, path: Path) -> Any:
        """A LoRA in GGUF form, for an AdapterMix. Raises ModelError if it doesn't fit this model."""
        try:
            return core().Adapter.load(self.handle, str(path))
        finally:
            forward_log()

    def apply_builtin_template(self, messages: Iterable[tuple[str, str]]) -> str | None:
        """The messages rendered by one of llama.cpp's built-in templates, or None if it knows none for this model."""
        text = self.handle.apply_builtin_template(self.chat_template or "", list(messages))
        return str(text) or None
