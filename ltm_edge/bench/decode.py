"""Cost of decoding under a grammar: against free text, against llama-cpp-python's own way, and with forcing.

All ways take turns within one run, prompt by prompt and round by round, so that whatever else the machine does falls on
all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltm_edge.bench.llama_loop import LlamaLoop, peak_memory
from ltm_edge.bench.report import Report, conditions, load_averages, this_machine
from ltm_edge.bench.table import number, render
from ltm_edge.engine.decoder import Decoder, Pass, Sampling
from ltm_edge.engine.model import LoadedModel, Tokens
from ltm_edge.native import core
from ltm_edge.schemas.template import Template

__all__ = ["DecodeReport", "bench_decode"]

_TEMPLATE = "mirror"
_CTX = 2048

_SYSTEM = "You read a message as a scene and answer it. Reply only in YAML, in the form of the example."
_REQUESTS = (
    "I have worked on the same book for nine years and I am afraid to finish it.",
    "My father and I only ever talk about the weather.",
    "Everyone in my team says yes to everything, and so do I.",
    "I moved to a new town and I still feel like a guest in it.",
)
_CHAIN = Sampling(temperature=0.4, top_k=40)  # the packaged overlay's
_GREEDY = Sampling(temperature=0.0, repeat_penalty=1.1)
_PLAIN = Sampling(temperature=0.0, repeat_penalty=1.0)  # what llama.cpp's greedy sampler does


@dataclass(frozen=True, slots=True)
class Run:
    """One document.

    Attributes:
        way: how it was written.
        prompt: number of the request.
        tokens: tokens of the document, as they were written.
        forced: how many of them were not sampled.
        seconds: from the call to the document.
        ms_prefill: reading the prompt; 0 where it is not known.
        ms_token: one sampled token: its decode and its choice; 0 where it is not known.
        ms_choice: of that, the choice.
        complete: the document ended by itself.
        text: the document.
    """

    way: str
    prompt: int
    tokens: int
    forced: int
    seconds: float
    ms_prefill: float
    ms_token: float
    ms_choice: float
    complete: bool
    text: str


@dataclass(frozen=True, slots=True)
class DecodeReport(Report):
    """One run of the benchmark.

    Attributes:
        machine: what the figures depend on.
        model: llama.cpp's description.
        threads: CPU threads.
        rounds: how often each request was answered in each way.
        load_after: how busy the machine was in the end.
        runs: every document.
        peak_bytes: peak memory of ours and of llama.cpp's own loop with the same context; None where not measured.
    """

    machine: dict[str, Any]
    model: str
    threads: int
    rounds: int
    load_after: list[float]
    runs: tuple[Run, ...]
    peak_bytes: tuple[int, int] | None = None

    def of(self, way: str, prompt: int | None = None) -> list[Run]:
        """Runs of a way, of all requests or of one."""
        return [run for run in self.runs if run.way == way and prompt in (None, run.prompt)]

    def median(self, way: str, figure: Callable[[Run], float]) -> float | None:
        """The mean over the requests of the median over the rounds; None without runs."""
        prompts = sorted({run.prompt for run in self.of(way)})
        each = [float(np.median([figure(run) for run in self.of(way, prompt)])) for prompt in prompts]
        return float(np.mean(each)) if each else None

    def best(self, way: str, prompt: int, figure: Callable[[Run], float]) -> float | None:
        """The lowest figure of a request over the rounds: what the machine does when nothing disturbs it."""
        found = [value for value in (figure(run) for run in self.of(way, prompt)) if value > 0]
        return min(found) if found else None

    def ratio(self, way: str, other: str, figure: Callable[[Run], float]) -> float | None:
        """The median over requests of the best of ``way`` over the best of ``other``."""
        quotients = []
        for prompt in sorted({run.prompt for run in self.runs}):
            a, b = self.best(way, prompt, figure), self.best(other, prompt, figure)
            if a is not None and b is not None:
                quotients.append(a / b)
        return float(np.median(quotients)) if quotients else None

    def choice_ratio(self, masks: str, free: str) -> float | None:
        """Constrained over free tokens/s if every decode took what the best one took: the grammar acts on nothing else.

        Decodes of the two differ by what else the machine does, by more than a choice takes.
        """
        steps = [run.ms_token - run.ms_choice for way in (masks, free) for run in self.of(way) if run.ms_token > 0]
        a, b = self.median(masks, _choice), self.median(free, _choice)
        if not steps or a is None or b is None:
            return None
        return (min(steps) + b) / (min(steps) + a)

    def summary(self) -> dict[str, float | None]:
        """The figures that the targets are about."""
        peaks = self.peak_bytes
        return {
            "plain_over_llama_cpp_loop": self.ratio(_LOOP, _PLAIN_KEPT, _per_sampled),
            "peak_memory_over_llama_cpp": peaks[0] / peaks[1] if peaks else None,
            "free_over_constrained_greedy": self.ratio("free, greedy", "masks, greedy", _per_sampled),
            "free_over_constrained_sampled": self.ratio("free, sampled", "masks, sampled", _per_sampled),
            "choice_free_over_constrained_greedy": self.choice_ratio("masks, greedy", "free, greedy"),
            "choice_free_over_constrained_sampled": self.choice_ratio("masks, sampled", "free, sampled"),
            "scene_over_llama_cpp_python": self.ratio("compiled, greedy", "llama-cpp-python", _per_token),
            "scene_over_llama_cpp_python_prompt_kept": self.ratio(
                "compiled, greedy, prompt kept", "llama-cpp-python, prompt kept", _per_token
            ),
            "compiled_over_masks": self.ratio("compiled, greedy", "masks, greedy", _per_token),
            "compiled_over_masks_prompt_kept": self.ratio(
                "compiled, greedy, prompt kept", "masks, greedy, prompt kept", _per_token
            ),
            "forced_share": self.median("compiled, greedy", lambda run: run.forced / run.tokens),
        }

    def lines(self) -> list[str]:
        """The report for people."""
        prompts = len({run.prompt for run in self.runs})
        lines = [
            conditions(self.machine, self.load_after),
            f"{self.model}, {self.threads} threads, template {_TEMPLATE}, {prompts} requests, {self.rounds} rounds; "
            "means over requests of medians over rounds; all ways take turns",
            "",
        ]
        rows = []
        for way in dict.fromkeys(run.way for run in self.runs):
            runs = self.of(way)
            known = any(run.ms_token for run in runs)
            rows.append(
                (
                    way,
                    number(self.median(way, lambda run: run.tokens)),
                    number(self.median(way, lambda run: run.forced)),
                    number(self.median(way, lambda run: run.seconds)),
                    number(self.median(way, lambda run: 1e3 * run.seconds / run.tokens)),
                    number(self.median(way, lambda run: run.ms_prefill)) if known else "–",
                    number(self.median(way, lambda run: run.ms_token)) if known else "–",
                    number(self.median(way, lambda run: run.ms_choice)) if known else "–",
                    f"{sum(run.complete for run in runs)}/{len(runs)}",
                )
            )
        lines.append(render(_HEAD, rows))
        figures = self.summary()
        lines += [
            "",
            "Ratios: of the best of the rounds, medians over requests.",
            f"plain tokens/s over llama.cpp's own loop, prompt read by both before: "
            f"{number(figures['plain_over_llama_cpp_loop'])}; peak memory over its: "
            f"{number(figures['peak_memory_over_llama_cpp'])}",
            f"constrained over free tokens/s, sampled tokens only: greedy "
            f"{number(figures['free_over_constrained_greedy'])}, sampled "
            f"{number(figures['free_over_constrained_sampled'])}",
            f"the same if every decode took as long as the best one: greedy "
            f"{number(figures['choice_free_over_constrained_greedy'])}, sampled "
            f"{number(figures['choice_free_over_constrained_sampled'])}",
            f"a scene over llama-cpp-python with the same grammar, time per token of the document: "
            f"{number(figures['scene_over_llama_cpp_python'])}; with the prompt in the cache of both: "
            f"{number(figures['scene_over_llama_cpp_python_prompt_kept'])}",
            f"forced tokens: {number(figures['forced_share'])} of a document; with forcing over without, time per "
            f"token: {number(figures['compiled_over_masks'])}; with the prompt in the cache: "
            f"{number(figures['compiled_over_masks_prompt_kept'])}",
            self._same_documents(),
        ]
        return lines

    def _same_documents(self) -> str:
        ours = {run.prompt: run.text for run in self.of("compiled, greedy")}
        counts = []
        for way in ("masks, greedy", "llama-cpp-python"):
            theirs = {run.prompt: run.text for run in self.of(way)}
            if theirs:
                same = sum(ours.get(prompt) == text for prompt, text in theirs.items())
                counts.append(f"{way} {same} of {len(theirs)}")
        return "documents equal to those of 'compiled, greedy': " + ", ".join(counts)


_LOOP = "llama.cpp's own loop"
_PLAIN_KEPT = "plain, greedy, prompt kept"
_HEAD = ("", "tokens", "forced", "s/scene", "ms/token", "prefill ms", "ms/sampled", "choice ms", "complete")


def _per_token(run: Run) -> float:
    return run.seconds / run.tokens


def _per_sampled(run: Run) -> float:
    return run.ms_token


def _choice(run: Run) -> float:
    return run.ms_choice


class _Ours:
    """Our decoder on one prompt and grammar."""

    def __init__(self, decoder: Decoder, gbnf: str) -> None:
        self._decoder = decoder
        self._gbnf = gbnf

    def run(
        self,
        way: str,
        prompt: int,
        tokens: Tokens,
        constraint: str,
        sampling: Sampling,
        limit: int,
        *,
        keep: bool = False,
    ) -> Run:
        if not keep:
            self._decoder.clear()
        begin = time.perf_counter()
        done = self._decoder.write(
            tokens,
            max_tokens=limit,
            sampling=sampling,
            gbnf=self._gbnf if constraint else "",
            constraint=constraint or "compiled",
        )
        seconds = time.perf_counter() - begin
        decodes, choices = self._steps(done, bool(constraint))
        known = not done.forced and decodes and choices
        choice = done.ms_sample / choices if known else 0.0
        return Run(
            way=way,
            prompt=prompt,
            tokens=len(done.tokens),
            forced=done.forced,
            seconds=seconds,
            ms_prefill=done.ms_prefill,
            ms_token=done.ms_decode / decodes + choice if known else 0.0,
            ms_choice=choice,
            complete=done.complete,
            text=done.text,
        )

    def plain(self, prompt: int, tokens: Tokens, limit: int) -> Run:
        """Free text behind a prompt that is read before the clock starts; every decode counts, all around it too."""
        self._decoder.clear()
        self._decoder.commit(tokens)
        begin = time.perf_counter()
        done = self._decoder.write(tokens, max_tokens=limit, sampling=_PLAIN)
        seconds = time.perf_counter() - begin
        decodes = len(done.tokens) + done.complete
        ms = 1e3 * seconds / decodes
        return Run(
            _PLAIN_KEPT, prompt, decodes, 0, seconds, 0.0, ms, done.ms_sample / decodes, done.complete, done.text
        )

    def _steps(self, done: Pass, constrained: bool) -> tuple[int, int]:
        """Decodes and choices of a pass without forced tokens.

        The last token of a document that nothing can follow is not decoded; an end that was sampled is a choice too.
        """
        n = len(done.tokens)
        if not done.complete:
            return n, n
        if constrained:
            matcher = core().Matcher(self._decoder.model.compile_grammar(self._gbnf))
            for token in done.tokens:
                matcher.accept(int(token))
            if matcher.is_closed:
                return n - 1, n
        return n, n + 1


class _LlamaCppPython:
    """What one would write without ltm-edge: a completion with LlamaGrammar, over the same prompt tokens."""

    def __init__(self, path: Path, n_ctx: int, threads: int, gbnf: str, limit: int) -> None:
        import llama_cpp

        library: Any = llama_cpp
        self._limit = limit
        self._model: Any = library.Llama(
            str(path), n_ctx=n_ctx, n_threads=threads, n_threads_batch=threads, n_gpu_layers=0, verbose=False
        )
        self._grammar: Any = library.LlamaGrammar.from_string(gbnf, verbose=False)

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def run(self, way: str, prompt: int, tokens: Tokens, *, keep: bool = False) -> Run:
        if not keep:
            self._model.reset()
            self._model._ctx.kv_cache_clear()
        given = [int(token) for token in tokens]
        begin = time.perf_counter()
        answer = self._model.create_completion(
            given,
            max_tokens=self._limit,
            temperature=_GREEDY.temperature,
            repeat_penalty=_GREEDY.repeat_penalty,
            grammar=self._grammar,
        )
        seconds = time.perf_counter() - begin
        choice = answer["choices"][0]
        return Run(
            way=way,
            prompt=prompt,
            tokens=int(answer["usage"]["completion_tokens"]),
            forced=0,
            seconds=seconds,
            ms_prefill=0.0,
            ms_token=0.0,
            ms_choice=0.0,
            complete=choice["finish_reason"] == "stop",
            text=str(choice["text"]),
        )


def bench_decode(
    path: Path | None,
    rounds: int,
    prompts: int = 3,
    limit: int = 400,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> DecodeReport:
    """Measure decoding on the CPU.

    Args:
        path: a chat model; None: the demo model.
        rounds: how often each request is answered in each way.
        prompts: how many requests, 1 to 4.
        limit: tokens that a document may take; ours are complete within them, others are cut.
        threads: CPU threads; None: one per core.
        progress: told what is being measured.

    Raises:
        ModelError: the model can't be used.
    """
    from ltm_edge.bundle import Bundle
    from ltm_edge.grammar import template_gbnf

    machine = this_machine()
    with ExitStack() as stack:
        bundle = stack.enter_context(Bundle.open(path, ctx=_CTX, gpu_layers=0, threads=threads))
        model = bundle.model
        names = bundle.overlay_set.archetype_names().get("en")
        gbnf = template_gbnf(bundle.templates[_TEMPLATE], names)
        ours = _Ours(Decoder(model), gbnf)
        theirs = stack.enter_context(closing(_LlamaCppPython(model.path, _CTX, model.threads, gbnf, limit)))
        loop = stack.enter_context(closing(LlamaLoop(model.path, _CTX, model.threads)))
        runs: list[Run] = []
        requests = [_prompt(model, bundle.templates[_TEMPLATE], text) for text in _REQUESTS[:prompts]]
        for tokens in requests:  # masks, pages and caches of both are warm from here on
            ours.run("", 0, tokens, "compiled", _GREEDY, limit)
        theirs.run("", 0, requests[0])
        for round_ in range(rounds):
            for prompt, tokens in enumerate(requests):
                progress(f"round {round_ + 1} of {rounds}, request {prompt + 1} of {len(requests)}")
                runs += _turn(ours, theirs, prompt, tokens, replace(_CHAIN, seed=round_), limit)
                runs += _plain(ours, loop, prompt, tokens, limit, ours_first=round_ % 2 == 0)
        progress("peak memory")
        return DecodeReport(
            machine=machine,
            model=model.description,
            threads=model.threads,
            rounds=rounds,
            load_after=load_averages(),
            runs=tuple(runs),
            peak_bytes=peak_memory(model.path, _CTX, model.threads),
        )


def _turn(
    ours: _Ours, theirs: _LlamaCppPython, prompt: int, tokens: Tokens, chain: Sampling, limit: int
) -> Sequence[Run]:
    """One request in every way. Free text is as long as the document beside it, if the model doesn't end it before."""
    compiled = ours.run("compiled, greedy", prompt, tokens, "compiled", _GREEDY, limit)
    kept = ours.run("compiled, greedy, prompt kept", prompt, tokens, "compiled", _GREEDY, limit, keep=True)
    plain = theirs.run("llama-cpp-python", prompt, tokens)
    plain_kept = theirs.run("llama-cpp-python, prompt kept", prompt, tokens, keep=True)
    masks = ours.run("masks, greedy", prompt, tokens, "masks", _GREEDY, limit)
    masks_kept = ours.run("masks, greedy, prompt kept", prompt, tokens, "masks", _GREEDY, limit, keep=True)
    free = ours.run("free, greedy", prompt, tokens, "", _GREEDY, masks.tokens)
    sampled = ours.run("masks, sampled", prompt, tokens, "masks", chain, limit)
    free_sampled = ours.run("free, sampled", prompt, tokens, "", chain, sampled.tokens)
    return compiled, kept, plain, plain_kept, masks, masks_kept, free, sampled, free_sampled


def _plain(
    ours: _Ours, loop: LlamaLoop, prompt: int, tokens: Tokens, limit: int, *, ours_first: bool
) -> tuple[Run, Run]:
    """Free text by ours and by llama.cpp's own loop, as many decodes of each."""
    plain = ours.plain(prompt, tokens, limit)
    loop.read(tokens)
    _, seconds = loop.write(plain.tokens)
    if not ours_first:
        plain = ours.plain(prompt, tokens, limit)
    ms = 1e3 * seconds / plain.tokens
    return plain, Run(_LOOP, prompt, plain.tokens, 0, seconds, 0.0, ms, 0.0, plain.complete, "")


def _prompt(model: LoadedModel, template: Template, request: str) -> Tokens:
    """A short prompt in the model's chat format, int32 [n]: one example, so that documents have a scene's length."""
    from ltm_edge.scene.chat_template import Message, render_chat

    example = template.examples["en"][0]
    rendered = render_chat(
        [
            Message("system", _SYSTEM),
            Message("user", example.pvq.text),
            Message("assistant", example.scene.to_yaml(order=tuple(template.fields))),
            Message("user", request),
        ],
        model.chat_template,
        model.bos,
        model.eos,
        lambda messages, _open: model.apply_builtin_template(messages),
        special_texts=model.special_texts,
    )
    return model.tokenize_segments((piece.text, piece.special) for piece in rendered.pieces(model.special_texts))
