"""Decoder: one llama.cpp context that writes documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ltm_edge.engine.model import LoadedModel, Tokens
from ltm_edge.engine.process import same_process
from ltm_edge.errors import EngineError
from ltm_edge.machine import memory
from ltm_edge.native import core, forward_log

if TYPE_CHECKING:
    from ltm_edge.engine.state_files import StateFiles, StateKey

__all__ = ["AdapterMix", "AnyOrder", "Committed", "Decoder", "Order", "Pass", "Sampling", "Scored"]


# Keys of models whose layers keep only a window of tokens, or something smaller in their place.
_LESS = ("attention.sliding_window", "attention.kv_lora_rank")
_SHARE = 0.8  # of the memory that is free, for keys and values: what is computed needs some, too


class AnyOrder(Protocol):
    """One answer to write; see :class:`Order`."""

    @property
    def prompt(self) -> Tokens: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def sampling(self) -> Sampling: ...
    @property
    def gbnf(self) -> str: ...
    @property
    def references(self) -> Sequence[Tokens]: ...


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
        shared: of the reused ones, those that were computed in the same pass for another answer.
        forced: tokens that were not sampled, because the grammar determined them.
        proposed: tokens proposed from the references.
        copied: of these, what the model wrote too.
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
    shared: int = 0
    proposed: int = 0
    copied: int = 0

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
                "sampled": max(len(self.tokens) - self.forced - self.copied, 0),
                "forced": self.forced,
                "proposed": self.proposed,
                "copied": self.copied,
                "resampled": self.resampled,
            },
            "ms": {
                "prefill": round(self.ms_prefill, 1),
                "decode": round(self.ms_decode, 1),
                "sample": round(self.ms_sample, 1),
            },
            "stop": self.stop,
        }


@dataclass(frozen=True, slots=True)
class Order:
    """One answer to write; the attributes are those of :meth:`Decoder.write`."""

    prompt: Tokens
    max_tokens: int
    sampling: Sampling
    gbnf: str = ""
    references: tuple[Tokens, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probabilities of continuations.

    Attributes:
        logprobs: natural logarithms for each continuation's tokens, float32 [m] each.
        reused: prompt tokens whose KV was there already.
        prefilled: prompt tokens computed now.
    """

    logprobs: tuple[npt.NDArray[np.float32], ...]
    reused: int
    prefilled: int


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did: tokens that were there, tokens computed now, and whether it came to its end."""

    reused: int
    prefilled: int
    complete: bool


class AdapterMix:
    """LoRA adapters with scales and a control vector, as one comparable value. Scales are kept in steps of 1/256."""

    __slots__ = ("handle",)

    def __init__(
        self,
        loras: Sequence[tuple[Any, float]] = (),
        control: npt.NDArray[np.float32] | None = None,
        control_scale: float = 1.0,
    ) -> None:
        """Take the parts.

        Args:
            loras: (adapter of :meth:`LoadedModel.load_adapter`, scale) pairs.
            control: directions for layers 1 to n_layer - 1, float32 [n_layer - 1, n_embd].
            control_scale: factor of the control vector.

        Raises:
            InputError: an adapter given twice, or a scale that is not finite or beyond 64.
        """
        native = core()
        vector = None if control is None else native.ControlVector(control)
        self.handle = native.AdapterState(list(loras), vector, control_scale)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdapterMix) and bool(self.handle == other.handle)

    __hash__ = None  # type: ignore[assignment]


class Decoder:
    """One llama.cpp context. One caller at a time; :meth:`cancel` may come from any thread or a signal handler."""

    def __init__(self, model: LoadedModel) -> None:
        """Create the context. Raises EngineError if llama.cpp can't, or if the memory can't hold it."""
        native = core()
        _check_memory(model)
        options = native.ContextOptions()
        options.n_ctx = model.n_ctx
        options.n_threads = model.threads
        options.flash_attn = model.options.flash_attn_code
        options.type_k = options.type_v = model.options.kv_type
        options.offload_kqv = model.plan.layers > 0
        self.model = model
        self.states: StateFiles | None = None
        self.state_keys: tuple[StateKey, ...] = ()
        self._base = AdapterMix()
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
        references: Sequence[Tokens] = (),
        adapters: AdapterMix | None = None,
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
            references: texts (int32 [n] each) that the answer is likely to repeat; the answer is the same, but sooner.
            adapters: what acts on this pass; None: what the decoder's base is.

        Raises:
            GrammarError: the grammar is refused, or its shortest document takes more than ``max_tokens``.
            ContextFull: prompt and answer exceed the context.
            EngineError: llama.cpp failed. The decoder stays usable after any of them.
        """
        order = Order(prompt, max_tokens, sampling, gbnf, tuple(references))
        sink = None if on_text is None else (lambda index, text: on_text(text))
        return self.write_many([order], adapters=adapters, on_text=sink, constraint=constraint)[0]

    def write_many(
        self,
        orders: Sequence[AnyOrder],
        *,
        adapters: AdapterMix | None = None,
        on_text: Callable[[int, str], None] | None = None,
        constraint: str = "compiled",
    ) -> list[Pass]:
        """Write several answers at once, in common batches; what their prompts share is computed once.

        Args:
            orders: what to write.
            adapters: what acts on all of them; None: what the decoder's base is.
            on_text: gets the number of the answer and whole characters of it.
            constraint: as for :meth:`write`.

        Raises:
            As :meth:`write`; ContextFull also where prompts and answers together exceed the context.
        """
        same_process()
        native = core()
        requests = []
        for order in orders:
            options = native.GenerateOptions()
            options.max_tokens = order.max_tokens
            if order.gbnf and constraint == "llama":
                options.llama_grammar = order.gbnf
            elif order.gbnf:
                options.grammar = self.model.compile_grammar(order.gbnf)
                options.force = constraint == "compiled"
            options.references = list(order.references)
            chain = native.SamplingOptions()
            for item in fields(order.sampling):
                setattr(chain, item.name, getattr(order.sampling, item.name))
            # To llama.cpp "all" is what the file says it was trained on, which may be anything; it reserves that much.
            for name in ("repeat_last_n", "dry_last_n"):
                if getattr(chain, name) < 0:
                    setattr(chain, name, self.n_ctx)
            options.sampling = chain
            requests.append((order.prompt, options))
        try:
            results = self._context.generate(requests, self._state(adapters), on_text)
        finally:
            forward_log()
        return [
            Pass(
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
                shared=done.n_shared,
                proposed=done.n_proposed,
                copied=done.n_copied,
            )
            for done in results
        ]

    def score(
        self, requests: Sequence[tuple[Tokens, Sequence[Tokens]]], *, adapters: AdapterMix | None = None
    ) -> list[Scored]:
        """Log-probabilities of given continuations, without writing any.

        Continuations of one token cost nothing beyond their prompt: a question with two answers is one short prefill
        behind what is cached.

        Args:
            requests: (prompt int32 [n], continuations int32 [m] each) pairs, all scored in common batches.
            adapters: what acts on all of them.

        Returns:
            One result for each request; none if it was cancelled.
        """
        same_process()
        try:
            results = self._context.score(
                [(prompt, list(continuations)) for prompt, continuations in requests], self._state(adapters)
            )
        finally:
            forward_log()
        return [
            Scored(tuple(np.asarray(values, dtype=np.float32) for values in r.logprobs), r.n_reused, r.n_prefilled)
            for r in results
        ]

    def commit(self, tokens: Tokens) -> Committed:
        """Compute the KV of ``tokens`` (int32 [n]) and keep it as the spine, which gives way last.

        :meth:`cancel` stops it; what was computed until then stays.
        """
        same_process()
        try:
            done = self._context.commit(tokens)
        finally:
            forward_log()
        return Committed(done.n_reused, done.n_prefilled, done.complete)

    def rebase(self, tokens: Tokens, keep: int, count: int) -> int:
        """Take ``count`` tokens behind the first ``keep`` out of the cached text that begins with ``tokens``.

        The rest moves to the front and is not computed again. It was computed in sight of what left, so that it is
        close to, not equal to, a fresh computation.

        Returns:
            Tokens that were moved; 0 where nothing is cached or this model's cache can't be shifted.
        """
        return int(self._context.rebase(tokens, keep, count))

    def warm(self, tokens: Tokens, head: int) -> int:
        """Begin a conversation: take what a saved state holds of ``tokens`` (int32 [n]), if nothing is cached yet.

        Without one the first ``head`` tokens are computed by themselves. So the rest is computed in the same batches
        with a saved state and without, and the same seed gives the same answer.

        Returns:
            Tokens taken from a saved state.
        """
        if self._context.n_cached:
            return 0
        if self.states is not None:
            for key in self.state_keys:
                restored = int(self.states.load(key, tokens, self))
                if restored:
                    return restored
        if head > 0:
            self.commit(tokens[:head])
        return 0

    def keep_states(self, states: StateFiles | None, *keys: StateKey) -> None:
        """Where :meth:`warm` finds saved states: the files, and the keys in the order in which they are tried."""
        self.states, self.state_keys = states, keys

    def set_base(self, adapters: AdapterMix) -> None:
        """The adapters that the spine and, unless told otherwise, every pass run under. Drops nothing by itself: what
        was computed under others is only never used.
        """
        self._base = adapters
        self._context.set_base(adapters.handle)

    def save_state(self, tokens: Tokens) -> tuple[npt.NDArray[np.uint8], int]:
        """KV of the longest cached beginning of ``tokens``: its bytes (uint8 [n]) and how many tokens it covers."""
        data, count = self._context.save(tokens)
        return data, int(count)

    def restore_state(self, tokens: Tokens, data: bytes | memoryview | npt.NDArray[np.uint8]) -> bool:
        """Take KV that :meth:`save_state` gave for exactly these tokens; False if llama.cpp refuses it.

        The bytes must come from this program: llama.cpp checks their sizes, not their sense.
        """
        try:
            return bool(self._context.restore(tokens, data))
        finally:
            forward_log()

    @property
    def stats(self) -> dict[str, Any]:
        """Sequences that hold something, those in use, tokens of the longest, and what adapters cost so far."""
        return {
            "sequences": int(self._context.n_sequences),
            "leased": int(self._context.n_leased),
            "cached": int(self._context.n_cached),
            "adapter_changes": int(self._context.adapter_changes),
            "adapter_ms": float(self._context.adapter_ms),
        }

    @property
    def can_shift(self) -> bool:
        """Whether cached tokens can move; False for recurrent, hybrid and some sliding-window models."""
        return bool(self._context.can_shift)

    def _state(self, adapters: AdapterMix | None) -> Any:
        return (self._base if adapters is None else adapters).handle

    def cancel(self) -> None:
        """Stop the running :meth:`write`, which then returns what there is; without one, the next."""
        self._context.cancel()

    def resume(self) -> None:
        """Forget a cancel that has not been acted upon."""
        self._context.resume()

    def clear(self) -> None:
        """Forget all cached tokens."""
        self._context.clear()


def _check_memory(model: LoadedModel) -> None:
    """Refuse a context that memory can't hold: most systems give it all the same, and end the process that fills it."""
    if model.plan.layers or any(key.endswith(_LESS) or ".ssm." in key for key in model.metadata):
        return  # it is on a GPU, or the model keeps less than what every layer would need for every token
    found = memory()
    needed = model.facts.kv_bytes(model.n_ctx, model.options.kv_type)
    if found is None or found.available is None or needed <= found.available:
        return
    most = int(found.available * _SHARE * model.n_ctx / needed) // 256 * 256
    raise EngineError(
        f"context: the keys and values of {model.n_ctx} tokens take {needed / 1e9:.1f} GB, "
        f"{found.available / 1e9:.1f} GB of memory are available; take a ctx of {most}, or a kv_type of fewer bits"
    )
