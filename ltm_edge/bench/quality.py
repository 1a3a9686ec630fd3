"""What routing and the self-loop bring: the same held-out requests, with the same seeds, with each of them on and off.

Every request opens a conversation of its own, without memory. The ways take turns request by request, each beginning
with another, so that whatever else the machine does falls on all of them alike. No target is set for any figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ltm_edge.bench.report import Columns, Report, conditions, load_averages, table, this_machine
from ltm_edge.bench.requests import HeldOut
from ltm_edge.bench.table import number
from ltm_edge.bench.text_measures import Difference, Vectors, distinct, paired, repeated, similarities, words
from ltm_edge.bench.variants import variant, without_loop, without_routing
from ltm_edge.bundle import Bundle
from ltm_edge.errors import SchemaError
from ltm_edge.loop.events import Replaced
from ltm_edge.scene.record import Scene
from ltm_edge.schemas.overlay import Overlay
from ltm_edge.session import Reply

__all__ = ["PLAIN", "Answer", "QualityReport", "Summary", "bench_quality", "summarise", "ways_of"]

PLAIN = "plain"
_SEED = 1000
_EMBEDDED = "en"  # what the demo embedder reads

Embed = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, slots=True)
class Answer:
    """One request answered in one way.

    Attributes:
        request, lang, seed: what was asked and how.
        way: of answering.
        template: that was chosen.
        complete: the document came to its end.
        valid: the document, read again, is a scene with a response.
        first: response of the first draft (of a consilium: of the one chosen).
        response: of the accepted draft, be it refused or not.
        refused: a refusal stood for it.
        council: several channels drafted.
        revised: the critics sent the first draft back.
        kept: a revision was accepted in its place.
        scores: the critics' mean for each draft, in order.
        objections: critics that were against the first draft.
        tokens: written in all passes.
        seconds: of the whole turn.
        shown: what was answered.
    """

    request: str
    lang: str
    seed: int
    way: str
    template: str
    complete: bool
    valid: bool
    first: str
    response: str
    refused: bool
    council: bool
    revised: bool
    kept: bool
    scores: tuple[float, ...]
    objections: tuple[str, ...]
    tokens: int
    seconds: float
    shown: str


@dataclass(frozen=True, slots=True)
class Summary:
    """All answers of one way. Texts are those of the accepted drafts, refused ones too, so that a way isn't better for
    refusing much. What needs an embedder is of the requests in its language.

    Attributes:
        way: its name.
        answers: how many.
        complete, valid, refused, council, revised: shares of them.
        kept: share of the revised ones whose revision was accepted.
        raised: share of the revised ones whose accepted revision the critics score higher than the first draft.
        better: share of the revised ones whose revision was accepted, is more like the request and repeats no more;
            of those that can be embedded. None where none was revised.
        length: mean number of words.
        distinct2: share of different pairs of words.
        repeated3: mean share of runs of three words that stood there before.
        similarity: mean cosine to the request.
        control: mean cosine to another request.
        similarity_refused: the first of the two for the refused alone; None where there are none.
        against_plain: similarity and repeated3 less those of the plain way.
        seconds: mean of a turn.
        tokens: mean of a turn.
    """

    way: str
    answers: int
    complete: float
    valid: float
    refused: float
    council: float
    revised: float
    kept: float | None
    raised: float | None
    better: float | None
    length: float
    distinct2: float
    repeated3: float
    similarity: float | None
    control: float | None
    similarity_refused: float | None
    against_plain: dict[str, Difference | None]
    seconds: float
    tokens: float


@dataclass(frozen=True, slots=True)
class QualityReport(Report):
    """What was measured.

    Attributes:
        machine: what the figures depend on.
        model: the model.
        threads: CPU threads.
        load_after: load averages at the end.
        summaries: by way.
        answers: all of them.
    """

    machine: dict[str, Any]
    model: str
    threads: int
    load_after: list[float]
    summaries: tuple[Summary, ...]
    answers: tuple[Answer, ...]

    def lines(self) -> list[str]:
        """The report for people."""
        count = self.summaries[0].answers
        return [
            f"{self.model}, {self.threads} threads, {count} requests, one conversation each",
            conditions(self.machine, self.load_after),
            "",
            table(_SHARES, self.summaries),
            "",
            table(_TEXTS, self.summaries),
            "",
            table(_DIFFERENCES, [one for one in self.summaries if one.way != PLAIN]),
            "",
            "kept, raised, better: of the revised; raised: kept, with a higher score of the critics",
            "better: kept, more like the request, and repeats no more",
            f"similarity: to the request, of those in {_EMBEDDED}; control: to another; refused: of the refused alone",
        ]

    def to_dict(self, *, answers: bool = False) -> dict[str, Any]:
        """The report as JSON, with all answers if asked for."""
        found = Report.to_dict(self)
        if not answers:
            del found["answers"]
        return found


_SHARES: Columns[Summary] = {
    "share of answers": lambda one: one.way,
    "complete": lambda one: number(one.complete),
    "valid": lambda one: number(one.valid),
    "council": lambda one: number(one.council),
    "revised": lambda one: number(one.revised),
    "kept": lambda one: number(one.kept),
    "raised": lambda one: number(one.raised),
    "better": lambda one: number(one.better),
    "refused": lambda one: number(one.refused),
    "s/turn": lambda one: number(one.seconds),
    "tokens/turn": lambda one: number(one.tokens),
}
_TEXTS: Columns[Summary] = {
    "accepted drafts": lambda one: one.way,
    "words": lambda one: number(one.length),
    "distinct-2": lambda one: number(one.distinct2),
    "repeated-3": lambda one: number(one.repeated3),
    "similarity": lambda one: number(one.similarity),
    "control": lambda one: number(one.control),
    "refused": lambda one: number(one.similarity_refused),
}
_DIFFERENCES: Columns[Summary] = {
    f"against {PLAIN}, +- twice the error": lambda one: one.way,
    "similarity": lambda one: _apart(one.against_plain["similarity"]),
    "repeated-3": lambda one: _apart(one.against_plain["repeated3"]),
}


def _apart(one: Difference | None) -> str:
    if one is None:
        return "–"
    return f"{one.mean:+.3f}" + ("" if one.error is None else f" +- {one.error:.3f}")


def ways_of(overlay: Overlay) -> dict[str, Overlay]:
    """The ways of answering: the overlay as it is, and with parts of it off.

    A template is chosen alike in all of them.
    """
    apart = replace(overlay, consilium=replace(overlay.consilium, enabled="never"))
    return {
        PLAIN: without_loop(without_routing(overlay)),
        "routing": without_loop(apart),
        "loop": without_routing(overlay),
        "routing, loop": apart,
        "the overlay": overlay,
    }


def _answered(bundle: Bundle, way: str, request: HeldOut, seed: int, limit: int | None) -> Answer:
    """Answer a request in a conversation of its own."""
    streamed: list[str] = []
    replaced: list[str] = []

    def note(event: object) -> None:
        if isinstance(event, Replaced) and event.about != "refusal":
            replaced.append(event.document)

    with bundle.session() as session:
        start = time.perf_counter()
        reply = session.send(
            request.text, on_token=streamed.append, on_event=note, lang=request.lang, seed=seed, max_tokens=limit
        )
        seconds = time.perf_counter() - start
        session.settle()  # keeps what all conversations begin with, so that later ones needn't compute it
    first = "".join(streamed)
    accepted = replaced[-1] if replaced else first
    trace = reply.trace
    if "consilium" in trace:
        council = trace["consilium"]
        first = next(one["document"] for one in council["drafts"] if one["channel"] == council["chosen"])
    judged = trace["loop"]["judged"]
    return Answer(
        request=request.id,
        lang=request.lang,
        seed=seed,
        way=way,
        template=trace["template"]["name"],
        complete=not reply.partial,
        valid=_valid(reply),
        first=_response(first),
        response=_response(accepted),
        refused=trace["refused"] is not None,
        council="consilium" in trace,
        revised=len(judged) > 1,
        kept=trace["loop"]["accepted"] > 0,
        scores=tuple(one["score"] for one in judged),
        objections=tuple(one["critic"] for one in judged[0]["verdicts"] if not one["passed"]),
        tokens=sum(sum(one["tokens"][key] for key in ("sampled", "forced", "copied")) for one in trace["passes"]),
        seconds=round(seconds, 3),
        shown=reply.text,
    )


def _response(document: str) -> str:
    """The response in a document; of one that is cut off, nothing."""
    try:
        return Scene.from_yaml(document).response
    except SchemaError:
        return ""


def _valid(reply: Reply) -> bool:
    return bool(_response(reply.document).strip())


def summarise(
    way: str, answers: Sequence[Answer], plain: Sequence[Answer], texts: Mapping[str, str], embed: Embed
) -> Summary:
    """What the answers of one way come to.

    Args:
        way: its name.
        answers: to all requests, in their order.
        plain: those of the plain way, in the same order.
        texts: the requests by id.
        embed: texts to vectors, float32 [n, dim], rows of length 1.
    """
    revised = [one for one in answers if one.revised]
    likeness = _likeness(answers, texts, embed)
    base = _likeness(plain, texts, embed)
    first = _likeness([replace(one, response=one.first) for one in revised], texts, embed)
    shared = [name for name in likeness if name in base]
    known = [one for one in revised if one.request in first and one.request in likeness]
    refused = [likeness[one.request][0] for one in answers if one.refused and one.request in likeness]
    repetition = [repeated(one.response) for one in answers]

    def better(one: Answer) -> bool:
        more = likeness[one.request][0] > first[one.request][0]
        return one.kept and more and repeated(one.response) <= repeated(one.first)

    return Summary(
        way=way,
        answers=len(answers),
        complete=_share(one.complete for one in answers),
        valid=_share(one.valid for one in answers),
        refused=_share(one.refused for one in answers),
        council=_share(one.council for one in answers),
        revised=_share(one.revised for one in answers),
        kept=_share(one.kept for one in revised) if revised else None,
        raised=_share(one.kept and max(one.scores[1:]) > one.scores[0] for one in revised) if revised else None,
        better=_share(better(one) for one in known) if known else None,
        length=fmean(len(words(one.response)) for one in answers),
        distinct2=distinct(one.response for one in answers),
        repeated3=fmean(repetition),
        similarity=fmean(own for own, _ in likeness.values()) if likeness else None,
        control=fmean(other for _, other in likeness.values()) if len(likeness) > 1 else None,
        similarity_refused=fmean(refused) if refused else None,
        against_plain={
            "similarity": paired([likeness[name][0] for name in shared], [base[name][0] for name in shared])
            if shared
            else None,
            "repeated3": paired(repetition, [repeated(one.response) for one in plain]),
        },
        seconds=fmean(one.seconds for one in answers),
        tokens=fmean(one.tokens for one in answers),
    )


def _share(held: Any) -> float:
    return fmean(map(float, held))


def _likeness(answers: Sequence[Answer], texts: Mapping[str, str], embed: Embed) -> dict[str, tuple[float, float]]:
    """By request, the response's cosine to it and to another; of those that can be embedded."""
    read = [one for one in answers if one.lang == _EMBEDDED and one.response.strip()]
    if not read:
        return {}
    own, other = similarities(embed([one.response for one in read]), embed([texts[one.request] for one in read]))
    return {one.request: (float(a), float(b)) for one, a, b in zip(read, own, other, strict=True)}


def bench_quality(
    path: Path | None,
    requests: Sequence[HeldOut],
    threads: int | None = None,
    limit: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> QualityReport:
    """Answer all requests in all ways.

    Args:
        path: a chat model or bundle; None: the demo model.
        requests: in the order in which they are asked.
        threads: CPU threads; None: one per core.
        limit: tokens that a document may take; None: as the overlay says.
        progress: told what is being measured.

    Raises:
        ModelError: the model, or the embedder that answers are measured with, can't be used.
    """
    from ltm_edge.embedders import demo_embedder

    machine = this_machine()
    with ExitStack() as stack:
        bundle = stack.enter_context(Bundle.open(path, threads=threads))
        # Whatever a bundle embeds with, its answers are measured with the same as all others'.
        embedder = stack.enter_context(demo_embedder(threads=threads))
        ways = [
            (name, stack.enter_context(variant(bundle, overlay))) for name, overlay in ways_of(bundle.overlay).items()
        ]
        for _, varied in ways:
            varied.embedder.covers("")  # loads it, so that no answer waits for it
        answers: dict[str, list[Answer]] = {name: [] for name, _ in ways}
        for place, request in enumerate(requests):
            progress(f"request {place + 1} of {len(requests)}: {request.id}")
            turn = place % len(ways)
            for name, varied in (*ways[turn:], *ways[:turn]):
                answers[name].append(_answered(varied, name, request, _SEED + place, limit))
        texts = {one.id: one.text for one in requests}

        def embed(wanted: Sequence[str]) -> Vectors:
            return embedder.embed(list(wanted))

        summaries = tuple(summarise(name, answers[name], answers[PLAIN], texts, embed) for name, _ in ways)
        return QualityReport(
            machine=machine,
            model=bundle.model.description,
            threads=bundle.model.threads,
            load_after=load_averages(),
            summaries=summaries,
            answers=tuple(one for of in answers.values() for one in of),
        )
