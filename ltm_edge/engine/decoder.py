"""Decoder: one llama.cpp context that writes documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ltm_edge.engine.model import LoadedModel, Tokens
from ltm_edge.native import core, forward_log

__all__ = ["Decoder", "Pass", "Sampling"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; llama.cpp's names and meanings.

    ``temperature`` 0 takes the likeliest token. Off: ``top_k`` 0, ``top_p`` 1, ``min_p`` 0, penalties 1 (repeat) and 0
    (frequency, presence, ``dry_multiplier``). ``repeat_last_n`` and ``dry_last_n``: tokens looked back at, -1 for all.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.1
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_last_n: int = -1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pass:
    """What one decode did.

    Attributes:
        text: what was written; a character cut off by a stop is dropped.
        tokens: its tokens, int32 [n].
        stop: ``eog`` (complete), ``length``, ``cancelled``, or ``sink`` (the stream's reader stopped it).
        prompt: tokens of the prompt.
        reused: prompt tokens whose KV was there already.
        prefilled: prompt tokens computed now.
        forced: tokens that were not sampled, because the grammar determined them.
        resampled: tokens for which llama.cpp's grammar looked at the whole vocabulary.
        ms_prefill: milliseconds spent on the prompt.
        ms_decode: milliseconds spent in the model, one token at a time.
        ms_sample: milliseconds spent on choosing tokens, the grammar included.
    """

    text: str
    tokens: Tokens
    stop: str
    prompt: int
    reused: int
    prefilled: int
    forced: int
    resampled: int
    ms_prefill: float
    ms_decode: float
    ms_sample: float

    @property
    def complete(self) -> bool:
        """True if the model ended the text itself."""
        return self.stop == "eog"

    def to_trace(self, kind: str) -> dict[str, Any]:
        """The pass as it stands in a turn's trace."""
        return {
            "kind": kind,
            "tokens": {
                "prompt": self.prompt,
                "reused": self.reused,
                "prefilled": self.prefilled,
                "sampled": len(self.tokens) - self.forced,
                "forced": self.forced,
                "resampled": self.resampled,
            },
            "ms": {
                "prefill": round(self.ms_prefill, 1),
                "decode": round(self.ms_decode, 1),
                "sample": round(self.ms_sample, 1),
            },
            "stop": self.stop,
        }


class Decoder:
    """One llama.cpp context. One caller at a time; :meth:`cancel` may come from any thread or a signal handler."""

    def __init__(self, model: LoadedModel) -> None:
        """Create the context. Raises EngineError if llama.cpp can't."""
        native = core()
        options = native.ContextOptions()
        options.n_ctx = model.n_ctx
        options.n_threads = model.threads
        options.flash_attn = model.options.flash_attn_code
        options.type_k = options.type_v = model.options.kv_type
        options.offload_kqv = model.plan.layers > 0
        self.model = model
        try:
            self._context = native.Context(model.handle, options)
        finally:
            forward_log()

    @property
    def n_ctx(self) -> int:
        """Tokens that the context holds."""
        return int(self._context.n_ctx)

    def write(
        self,
        prompt: Tokens,
        *,
        max_tokens: int,
        sampling: Sampling,
        gbnf: str = "",
        on_text: Callable[[str], None] | None = None,
        constraint: str = "compiled",
    ) -> Pass:
        """Write up to ``max_tokens`` after ``prompt`` (int32 [n]), under a GBNF grammar if one is given.

        Args:
            prompt: int32 [n].
            max_tokens: tokens that may be written; under a compiled grammar the document is complete within them.
            sampling: how tokens are chosen.
            gbnf: the grammar, empty for free text.
            on_text: gets whole characters as they are written. What it raises ends the decode and is raised again here.
            constraint: ``compiled`` (masks, forced tokens, landing), ``masks`` (the same without forcing) or ``llama``
                (llama.cpp's own sampler, the oracle: slow, and it may run out of tokens).

        Raises:
            GrammarError: the grammar is refused, or its shortest document takes more than ``max_tokens``.
            ContextFull: prompt and answer exceed the context.
            EngineError: llama.cpp failed. The decoder stays usable after any of them.
        """
        native = core()
        options = native.GenerateOptions()
        options.max_tokens = max_tokens
        if gbnf and constraint == "llama":
            options.llama_grammar = gbnf
        elif gbnf:
            options.grammar = self.model.compile_grammar(gbnf)
            options.force = constraint == "compiled"
        chain = native.SamplingOptions()
        for item in fields(sampling):
            setattr(chain, item.name, getattr(sampling, item.name))
        options.sampling = chain
        try:
            done = self._context.generate(prompt, options, on_text)
        finally:
            forward_log()
        return Pass(
            text=done.text,
            tokens=done.tokens,
            stop=done.stop,
            prompt=done.n_prompt,
            reused=done.n_reused,
            prefilled=done.n_prefilled,
            forced=done.n_forced,
            resampled=done.n_resampled,
            ms_prefill=done.ms_prefill,
            ms_decode=done.ms_decode,
            ms_sample=done.ms_sample,
        )

    def cancel(self) -> None:
        """Stop the running :meth:`write`, which then returns what there is; without one, the next."""
        self._context.cancel()

    def resume(self) -> None:
        """Forget a cancel that has not been acted upon."""
        self._context.resume()

    def clear(self) -> None:
        """Forget all cached tokens."""
        self._context.clear()
