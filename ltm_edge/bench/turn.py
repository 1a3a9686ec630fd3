"""Cost of whole turns, and of a turn's passes against one draft: drafts in parallel, critics, a revision, a restart.

All passes take turns within one run, round by round, so that whatever else the machine does falls on all of them alike.
The best of the rounds counts.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltm_edge.bench.report import Columns, Report, conditions, load_averages, table, this_machine
from ltm_edge.bench.table import number, render
from ltm_edge.bench.whole_turn import STAGES, WAYS, WholeTurns, measure_whole_turns
from ltm_edge.engine.decoder import AdapterMix, Decoder, Order, Pass, Sampling
from ltm_edge.engine.model import LoadedModel, Tokens
from ltm_edge.engine.state_files import StateFiles, StateKey
from ltm_edge.turn import Turn

__all__ = ["TurnReport", "bench_turn"]

_TEMPLATE = "mirror"
_CTX = 4096
_REQUEST = "I have worked on the same book for nine years and I am afraid to finish it."
_ASK = "\nYes or no."  # said once: what questions have in common is computed once
_QUESTIONS = (" Is it about what was asked?", " Do the poles differ?", " Is it kind?")
_AGAIN = "Write the same scene once more, word for word, without any change."
_CHAIN = Sampling(temperature=0.7, top_k=40)
_FLOOR_STEPS = 24
_CHANGED = 0.2  # share of a draft that a revision changes


@dataclass(frozen=True, slots=True)
class Row:
    """One pass: the best of its rounds.

    Attributes:
        name: what was done.
        ms: milliseconds.
        ratio: against ``of``.
        of: what it is compared with.
        target: what the ratio should not exceed; None where none is set.
        note: counts of tokens.
    """

    name: str
    ms: float
    ratio: float | None
    of: str
    target: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class TurnReport(Report):
    """What was measured.

    Attributes:
        machine: what the figures depend on.
        model: the model.
        threads: CPU threads.
        rounds: how often each pass was made.
        load_after: load averages at the end.
        rows: the passes and whole turns.
        stages: milliseconds of whole turns by way, then by stage.
    """

    machine: dict[str, Any]
    model: str
    threads: int
    rounds: int
    load_after: list[float]
    rows: tuple[Row, ...]
    stages: dict[str, dict[str, float]]

    def lines(self) -> list[str]:
        """The report for people."""
        return [
            f"{self.model}, {self.threads} threads, best of {self.rounds} rounds",
            conditions(self.machine, self.load_after),
            "",
            table(_COLUMNS, self.rows),
            "",
            render(["stage, ms and share of the turn", *self.stages], [self._shares(name) for name in STAGES]),
        ]

    def _shares(self, stage: str) -> list[str]:
        """What one stage takes of each whole turn."""
        cells = [f"{number(of[stage])} {of[stage] / sum(of.values()):4.0%}" for of in self.stages.values()]
        return [stage, *cells]


_COLUMNS: Columns[Row] = {
    "pass": lambda row: row.name,
    "ms": lambda row: number(row.ms),
    "ratio": lambda row: number(row.ratio),
    "of": lambda row: row.of,
    "target": lambda row: number(row.target),
    "tokens": lambda row: row.note,
}


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return (time.perf_counter() - start) * 1000, result


class _Passes:
    def __init__(
        self, model: LoadedModel, gbnf: str, prompt: Tokens, limit: int, again: Callable[[str], Tokens]
    ) -> None:
        """``again`` makes the prompt of a revision from the document of the draft."""
        self.model = model
        self.again = again
        self.gbnf = gbnf
        self.prompt = prompt
        self.limit = limit
        self.decoder = Decoder(model)
        self.best: dict[str, float] = {}
        self.notes: dict[str, str] = {}

    def note(self, name: str, ms: float, note: str = "") -> None:
        if name not in self.best or ms < self.best[name]:
            self.best[name] = ms
            self.notes[name] = note

    def fresh(self) -> None:
        """Nothing cached but the prompt."""
        self.decoder.clear()
        self.decoder.commit(self.prompt[:-1])

    def order(self, seed: int, references: tuple[Tokens, ...] = (), temperature: float = 0.7) -> Order:
        chain = replace(_CHAIN, seed=seed, temperature=temperature)
        return Order(self.prompt, self.limit, chain, self.gbnf, references)

    def round(self, number_: int) -> None:
        decoder = self.decoder
        self.fresh()
        ms, (draft,) = _timed(lambda: decoder.write_many([self.order(number_)]))
        self.note("one draft", ms / max(len(draft.tokens), 1), f"{len(draft.tokens)}, {draft.forced} forced")
        draft_ms = ms
        self.fresh()
        ms, drafts = _timed(lambda: decoder.write_many([self.order(number_ * 4 + k) for k in range(4)]))
        longest = max(len(done.tokens) for done in drafts)
        self.note(
            "four drafts", ms / longest, f"{longest} in the longest, {sum(d.prefilled for d in drafts)} prefilled"
        )
        self._floor()
        self._critics(draft.tokens, draft_ms, len(draft.tokens))
        self._revision(number_, draft)

    def _floor(self) -> None:
        for count in (1, 4):
            self.fresh()
            orders = [Order(self.prompt, _FLOOR_STEPS, replace(_CHAIN, seed=k), "") for k in range(count)]
            done = self.decoder.write_many(orders)
            steps = max(len(item.tokens) for item in done)
            self.note(f"floor {count}", sum(item.ms_decode for item in done) / max(steps - 1, 1))

    def _critics(self, draft: Tokens, draft_ms: float, n: int) -> None:
        read = np.concatenate([self.prompt, draft]).astype(np.int32)
        yes, no = self.model.tokenize(" yes")[:1], self.model.tokenize(" no")[:1]
        probes = [
            (np.concatenate([read, self.model.tokenize(_ASK + text)]).astype(np.int32), [yes, no])
            for text in _QUESTIONS
        ]
        self.decoder.commit(read)
        ms, scored = _timed(lambda: self.decoder.score(probes))
        self.note(
            "three critics",
            ms / max(draft_ms, 1e-9),
            f"{sum(s.prefilled for s in scored)} prefilled of {n} + 3 questions",
        )

    def _revision(self, seed: int, draft: Pass) -> None:
        """The draft stands in the prompt, and what the model then writes is written once more with a text to copy from.

        Of that text a fifth is something else. So four fifths of what is written can be copied, as in a revision that
        changes the rest, whether the model keeps to its draft or not.
        """
        prompt = self.again(draft.text)
        rng = np.random.default_rng(seed)
        chain = replace(_CHAIN, seed=seed, temperature=0.0, repeat_penalty=1.0)
        references: tuple[Tokens, ...] = ()
        done: list[tuple[float, Pass]] = []
        for _ in range(2):
            self.decoder.clear()
            self.decoder.commit(prompt[:-1])
            one = Order(prompt, self.limit, chain, self.gbnf, references)
            ms, (written,) = _timed(functools.partial(self.decoder.write_many, [one]))
            done.append((ms / max(len(written.tokens), 1), written))
            changed = written.tokens.copy()
            # A revision changes some places, not every fifth word: runs of four tokens.
            for start in rng.permutation(np.arange(0, len(changed) - 4, 4))[: int(len(changed) * _CHANGED / 4)]:
                changed[start : start + 4] = self.model.tokenize(" otherwise")[0]
            references = (changed,)
        (fresh_ms, fresh), (ms, again) = done
        same = "the same text" if again.text == fresh.text else "another text"
        kept = f"{again.copied} copied of {again.proposed} proposed, {len(again.tokens)} in all, {same}"
        self.note("revision", ms / fresh_ms, kept)


def bench_turn(
    path: Path | None,
    rounds: int,
    limit: int = 200,
    threads: int | None = None,
    scenes: int = 10_000,
    progress: Callable[[str], None] = lambda _: None,
) -> TurnReport:
    """Measure the passes of a turn, and whole turns.

    Args:
        path: a chat model; None: the demo model.
        rounds: how often each pass is made.
        limit: tokens that a draft may take.
        threads: CPU threads; None: one per core.
        scenes: in the memory that whole turns recall from.
        progress: told what is being measured.

    Raises:
        ModelError: the model can't be used.
    """
    from ltm_edge.bundle import Bundle
    from ltm_edge.grammar import template_gbnf
    from ltm_edge.loop.prompt import fit_prompt
    from ltm_edge.scene.compose import PromptComposer
    from ltm_edge.scene.pvq import Pvq

    machine = this_machine()
    with Bundle.open(path, ctx=_CTX, threads=threads) as bundle:
        model = bundle.model
        overlay = bundle.overlay_set
        template = bundle.templates[_TEMPLATE]
        gbnf = template_gbnf(template, overlay.archetype_names().get("en"))
        composer = PromptComposer(overlay.prompts, template, "en", None, overlay.templates, overlay.overlay.few_shot)
        fitted = fit_prompt(composer, model, (), Pvq(_REQUEST), template, "en", n_ctx=_CTX, max_tokens=4 * limit)

        def again(document: str) -> Tokens:
            first = Turn(
                request=_REQUEST, document=document, reply_text="", template=_TEMPLATE, lang="en", partial=False
            )
            most = 4 * limit
            pvq = Pvq(_AGAIN)
            return fit_prompt(composer, model, (first,), pvq, template, "en", n_ctx=_CTX, max_tokens=most).tokens

        passes = _Passes(model, gbnf, fitted.tokens, limit, again)
        passes.fresh()
        passes.decoder.write_many([passes.order(0)])  # masks, pages and caches are warm from here on
        for number_ in range(rounds):
            progress(f"round {number_ + 1} of {rounds}")
            passes.round(number_)
            _start(passes, number_)
            _adapters(passes)
        whole = measure_whole_turns(bundle, rounds, limit, scenes, progress)
        best, notes = passes.best, passes.notes
        floor = best["floor 4"] / best["floor 1"]
        four = best["four drafts"] / best["one draft"]
        rows = (
            Row("one draft, per token", best["one draft"], None, "", None, notes["one draft"]),
            Row("four drafts, per step", best["four drafts"], four, "one draft", None, notes["four drafts"]),
            Row("one sequence, free, per step", best["floor 1"], None, "", None),
            Row("four sequences, free, per step", best["floor 4"], floor, "one sequence", None),
            Row("four drafts over one", four, four / floor, "the same without a grammar", 1.1),
            Row("three critics", 0.0, best["three critics"], "one draft", 0.10, notes["three critics"]),
            Row("revision that keeps 80 %", 0.0, best["revision"], "a fresh draft", 0.45, notes["revision"]),
            Row("first start to first token", best["cold start"], None, "", None, notes["cold start"]),
            Row(
                "second start to first token",
                best["second start"],
                best["second start"] / best["cold start"],
                "the first",
                0.5,
                notes["second start"],
            ),
            Row("change of adapters", best["adapters"], None, "", None, "a control vector on and off"),
            *_whole_rows(whole, floor),
        )
        return TurnReport(
            machine=machine,
            model=model.description,
            threads=model.threads,
            rounds=rounds,
            load_after=load_averages(),
            rows=rows,
            stages={way: whole.stages(way) for way in WAYS},
        )


def _whole_rows(whole: WholeTurns, floor: float) -> tuple[Row, ...]:
    """Whole turns, per token of the draft, against the same draft by itself.

    Args:
        whole: what was measured.
        floor: four sequences over one, free.
    """
    full, revised, council = WAYS
    of = "its bare draft"

    def note(way: str, by: float = 1.0) -> str:
        return f"{whole.note(way)}; median of rounds {number(whole.middle(way) / by)}"

    return (
        Row(f"bare draft after recall from {whole.scenes} scenes", whole.bare_ms(), None, "", None, whole.note(full)),
        Row(full, whole.ms(full), whole.ratio(full), of, 1.25, note(full)),
        Row(f"turn {revised}", whole.ms(revised), whole.ratio(revised), of, 1.8, note(revised)),
        Row(
            f"turn with a {council}",
            whole.ms(council),
            whole.ratio(council) / floor,
            "bare draft x four sequences",
            1.25,
            note(council, floor),
        ),
        *(Row(f"outside the models, {way} (<= 30 ms)", whole.outside_ms(way), None, "", None) for way in WAYS),
    )


def _start(passes: _Passes, seed: int) -> None:
    """From an empty context to the first token, without and with a saved state."""
    head = int(len(passes.prompt) * 0.9)
    with tempfile.TemporaryDirectory() as folder:
        states = StateFiles(Path(folder), max_bytes=1 << 30)
        key = StateKey.of(passes.model)
        for name in ("cold start", "second start"):
            decoder = Decoder(passes.model)
            decoder.keep_states(states, key)

            def begin(decoder: Decoder = decoder) -> tuple[int, Any]:
                restored = decoder.warm(passes.prompt, head)
                return restored, decoder.write(passes.prompt, max_tokens=1, sampling=replace(_CHAIN, seed=seed))

            ms, (restored, done) = _timed(begin)
            passes.note(name, ms, f"{restored} from the file, {done.prefilled} computed")
            states.save(key, passes.prompt[:head], decoder)


def _adapters(passes: _Passes) -> None:
    """Switching a control vector on and off; its directions are zero, which costs the same."""
    layers, width = int(passes.model.handle.n_layer), int(passes.model.handle.n_embd)
    mix = AdapterMix(control=np.zeros((layers - 1, width), dtype=np.float32))
    decoder = passes.decoder
    before = decoder.stats
    decoder.write(passes.prompt, max_tokens=1, sampling=_CHAIN, adapters=mix)
    decoder.write(passes.prompt, max_tokens=1, sampling=_CHAIN)
    after = decoder.stats
    changes = after["adapter_changes"] - before["adapter_changes"]
    passes.note("adapters", (after["adapter_ms"] - before["adapter_ms"]) / max(changes, 1))
