"""Does a channel change what is written? Pure channels answer the same requests; a small classifier tells them apart.

Every request is answered by every channel with the same seed, under the same template, in a conversation of its own,
by one draft that nobody judges. Channels act by prompts (their directives and sampling settings), by heads (their
adapters), or both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ltm_edge.bench.classify import Told, tell_apart
from ltm_edge.bench.report import Columns, Report, conditions, load_averages, table, this_machine
from ltm_edge.bench.requests import HeldOut
from ltm_edge.bench.table import number, render
from ltm_edge.bench.text_measures import words
from ltm_edge.bench.variants import undirected, variant, without_loop
from ltm_edge.bundle import Bundle
from ltm_edge.errors import InputError

__all__ = ["ChannelsReport", "Level", "bench_channels"]

_SEED = 2000
PROMPTS, HEADS, BOTH = "prompts only", "heads only", "both"


@dataclass(frozen=True, slots=True)
class Level:
    """What channels do at one level.

    Attributes:
        name: ``prompts only``, ``heads only`` or ``both``.
        told: how well they are told apart.
        alike: share of the requests that all channels answer with the same words.
        complete: share of the documents that came to their end.
        length: mean number of words of each channel's responses, by channel.
        responses: by request, then by channel.
    """

    name: str
    told: Told
    alike: float
    complete: float
    length: dict[str, float]
    responses: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class ChannelsReport(Report):
    """What was measured.

    Attributes:
        machine: what the figures depend on.
        model: the model.
        threads: CPU threads.
        load_after: load averages at the end.
        channels: their names.
        requests: how many each answered.
        levels: at which they were compared.
        note: why some levels are missing; empty where none is.
    """

    machine: dict[str, Any]
    model: str
    threads: int
    load_after: list[float]
    channels: tuple[str, ...]
    requests: int
    levels: tuple[Level, ...]
    note: str

    def lines(self) -> list[str]:
        """The report for people."""
        columns: Columns[Level] = {
            "channels act by": lambda level: level.name,
            "accuracy": lambda level: number(level.told.accuracy),
            "chance": lambda _: number(1 / len(self.channels)),
            "p": lambda level: f"{level.told.p:.4f}",
            "all alike": lambda level: number(level.alike),
            "complete": lambda level: number(level.complete),
        }
        lines = [
            f"{self.model}, {self.threads} threads, {self.requests} requests to each of {len(self.channels)} channels",
            conditions(self.machine, self.load_after),
            "",
            table(columns, self.levels),
        ]
        for level in self.levels:
            body = [
                [name, *(str(count) for count in counts), number(level.length[name])]
                for name, counts in zip(self.channels, level.told.confusion, strict=True)
            ]
            lines += ["", render([f"{level.name}: is, told as", *self.channels, "words"], body)]
        if self.note:
            lines += ["", self.note]
        return lines

    def to_dict(self, *, answers: bool = False) -> dict[str, Any]:
        """The report as JSON, with all responses if asked for."""
        found = Report.to_dict(self)
        for level in found["levels"]:
            if not answers:
                del level["responses"]
        return found


def bench_channels(
    path: Path | None,
    requests: Sequence[HeldOut],
    threads: int | None = None,
    limit: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ChannelsReport:
    """Let every channel answer every request, and tell the channels apart.

    Args:
        path: a chat model or bundle; None: the demo model.
        requests: two or more.
        threads: CPU threads; None: one per core.
        limit: tokens that a document may take; None: as the overlay says.
        progress: told what is being measured.

    Raises:
        InputError: fewer than two requests, one that the embedder doesn't read, or fewer than two channels.
        ModelError: the model, or the embedder that answers are told apart by, can't be used.
    """
    from ltm_edge.embedders import demo_embedder

    machine = this_machine()
    with ExitStack() as stack:
        bundle = stack.enter_context(Bundle.open(path, threads=threads))
        embedder = stack.enter_context(demo_embedder(threads=threads))
        channels = bundle.channels
        if len(channels) < 2 or len(requests) < 2:
            raise InputError(
                f"{bundle.path}: {len(channels)} channels, {len(requests)} requests; it takes two of each to compare"
            )
        foreign = next((one.id for one in requests if not embedder.covers(one.text)), None)
        if foreign is not None:
            raise InputError(f"request {foreign}: the embedder that answers are told apart by can't read its language")
        overlay = without_loop(bundle.overlay)
        kinds = {PROMPTS: variant(bundle, overlay, adapters=False)}
        if bundle.adapters:
            kinds[HEADS] = variant(bundle, overlay, undirected(bundle.field))
            kinds[BOTH] = variant(bundle, overlay)
        levels = []
        for name, varied in kinds.items():
            stack.enter_context(varied)
            responses: dict[str, dict[str, str]] = {}
            complete = []
            for place, request in enumerate(requests):
                progress(f"{name}, request {place + 1} of {len(requests)}: {request.id}")
                responses[request.id] = {}
                for channel in channels:
                    response, whole = _answered(varied, request, channel, _SEED + place, limit)
                    responses[request.id][channel] = response
                    complete.append(whole)
            levels.append(_level(name, channels, responses, complete, embedder))
        return ChannelsReport(
            machine=machine,
            model=bundle.model.description,
            threads=bundle.model.threads,
            load_after=load_averages(),
            channels=channels,
            requests=len(requests),
            levels=tuple(levels),
            note="" if bundle.adapters else f"{bundle.name} has no channel adapters: heads were not measured",
        )


def _answered(bundle: Bundle, request: HeldOut, channel: str, seed: int, limit: int | None) -> tuple[str, bool]:
    """A channel's response in a conversation of its own, and whether its document is complete."""
    with bundle.session() as session:
        reply = session.send(
            request.text, lang=request.lang, channels=channel, council="off", seed=seed, max_tokens=limit
        )
        session.settle()  # keeps what all conversations begin with, so that later ones needn't compute it
    return (reply.scene.response if reply.scene is not None else reply.text), not reply.partial


def _level(
    name: str,
    channels: Sequence[str],
    responses: dict[str, dict[str, str]],
    complete: Sequence[bool],
    embedder: Any,
) -> Level:
    texts = [of[channel] for of in responses.values() for channel in channels]
    vectors = np.asarray(embedder.embed(texts), dtype=np.float32).reshape(len(responses), len(channels), -1)
    return Level(
        name=name,
        told=tell_apart(vectors),
        alike=fmean(float(len(set(of.values())) == 1) for of in responses.values()),
        complete=fmean(map(float, complete)),
        length={channel: fmean(len(words(of[channel])) for of in responses.values()) for channel in channels},
        responses=responses,
    )
