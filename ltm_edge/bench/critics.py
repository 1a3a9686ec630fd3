"""What critics tell apart: good scenes and scenes damaged by hand in one way each.

Each critic judges the good and the damaged scene of every triple. The figure is the area under the ROC curve of its
score: how often a good scene scores over a damaged one, for the damages that the critic is there for and for the
others. Signals were set, and probes are calibrated, on one half of the triples; the other half is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ltm_edge.bench.report import Report, this_machine
from ltm_edge.bench.table import render
from ltm_edge.bench.triples import Triple
from ltm_edge.loop.critics.calibrate import Calibration, auc, fit_probe
from ltm_edge.loop.critics.critic import Measured, combine, probability
from ltm_edge.loop.critics.examples import KINDS, OWN_KINDS, Example
from ltm_edge.loop.critics.exhibit import Embed, Exhibit, keeping
from ltm_edge.loop.critics.hearing import Hearing
from ltm_edge.schemas.overlay import CriticName

__all__ = ["CriticsReport", "Row", "bench_critics"]

SOURCES = ("signals", "signals, words only", "probe", "both")


@dataclass(frozen=True, slots=True)
class Row:
    """What one critic tells apart by one source.

    Attributes:
        critic: its name.
        source: ``signals``, ``signals, words only`` (as without an embedder), ``probe``, ``both``.
        own, others: AUC on the damages that it is there for, and on the others.
        kinds: AUC by kind of damage.
        pairs: share of the own triples whose good scene scores higher than its damaged one, ties as a half.
        count: own triples.
        refused: share of the own damaged scenes under the critic's threshold; None for a bare probe, which has none.
        alarms: the same of all good scenes, those without a damaged one included.
    """

    critic: CriticName
    source: str
    own: float
    others: float
    kinds: Mapping[str, float]
    pairs: float
    count: int
    refused: float | None
    alarms: float | None


@dataclass(frozen=True, slots=True)
class CriticsReport(Report):
    """What was measured.

    Attributes:
        machine: what times would depend on.
        half: which triples are reported.
        triples: how many, by kind.
        plain: good scenes without a damaged one.
        embedder: whether meanings were compared.
        model: which model was asked; None: none.
        rows: one for each critic and source.
        languages: the same rows' ``own``, by critic, source and language.
        signals: AUC of each signal by kind of damage, by critic and signal.
        calibrations: by critic and language, found on the other half.
    """

    machine: dict[str, Any]
    half: str
    triples: Mapping[str, int]
    plain: int
    embedder: bool
    model: str | None
    rows: tuple[Row, ...]
    languages: Mapping[str, Mapping[str, Mapping[str, float]]]
    signals: Mapping[str, Mapping[str, Mapping[str, float]]]
    calibrations: Mapping[str, Mapping[str, Calibration]]

    def lines(self) -> list[str]:
        """The report for people."""
        langs = sorted({lang for of in self.languages.values() for one in of.values() for lang in one})
        figures = ("own", "others", "pairs", "refused", "alarms")
        head = ["critic", "by", *figures, *(f"own {lang}" for lang in langs), *KINDS]
        body = [
            [
                row.critic,
                row.source,
                *(_figure(getattr(row, figure)) for figure in figures),
                *(_figure(self.languages[row.critic][row.source].get(lang)) for lang in langs),
                *(_figure(row.kinds.get(kind), "*" if kind in OWN_KINDS[row.critic] else "") for kind in KINDS),
            ]
            for row in self.rows
        ]
        parts = [
            [f"{critic}: {name}", *(_figure(kinds.get(kind)) for kind in KINDS)]
            for critic, of in self.signals.items()
            for name, kinds in of.items()
        ]
        counts = ", ".join(f"{count} {kind}" for kind, count in self.triples.items())
        asked = "no model was asked" if self.model is None else f"asked: {self.model}"
        weights = [
            f"probe of {critic}, {lang}: shift {one.shift:g}, slope {one.slope:g}, weight {one.weight:g}"
            for critic, of in self.calibrations.items()
            for lang, one in of.items()
        ]
        return [
            f"{sum(self.triples.values())} triples of the half {self.half}: {counts}; {self.plain} good scenes more",
            f"{'with' if self.embedder else 'without'} an embedder; {asked}",
            "AUC: how often a good scene scores over a damaged one; 0.5 is chance. *: the critic's own kinds.",
            "refused, alarms: share of own damaged and of all good scenes under the critic's threshold.",
            "",
            render(head, body),
            "",
            "the signals alone:",
            render(["signal", *KINDS], parts),
            *(["", "calibrated on the other half:", *weights] if weights else []),
        ]


def _figure(value: float | None, mark: str = "") -> str:
    return "–" if value is None else f"{mark}{value:.2f}"


@dataclass(frozen=True, slots=True)
class _Judged:
    """One triple's two scenes under one critic: scores by source and signals, each as (good, damaged)."""

    triple: Triple
    scores: Mapping[str, tuple[float, float]]
    signals: Mapping[str, tuple[float, float]]
    odds: tuple[float, float] | None


def bench_critics(
    triples: Sequence[Triple],
    critics: Sequence[Measured],
    half: str = "report",
    *,
    plain: Sequence[Example] = (),
    embed: Callable[[str], Embed | None] | None = None,
    hearing: Hearing | None = None,
    model: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> CriticsReport:
    """Measure what critics tell apart.

    Args:
        triples: all of them; probes are calibrated on those that aren't reported.
        critics: the critics.
        half: which are reported: ``report``, ``tune`` or ``all``.
        plain: good scenes, for false alarms; they are judged without asking a model.
        embed: an embedder for a text, None where it doesn't cover its language; None: no embedder at all.
        hearing: puts scenes before a model; None: no model is asked.
        model: its name.
        progress: gets what is measured next.
    """
    machine = this_machine()
    odds = _ask(triples, critics, hearing, progress)
    rows: list[Row] = []
    languages: dict[str, dict[str, dict[str, float]]] = {}
    signals: dict[str, dict[str, dict[str, float]]] = {}
    calibrations: dict[str, dict[str, Calibration]] = {}
    for critic in critics:
        progress(critic.title)
        judged = [_judge(critic, triple, embed, odds) for triple in triples]
        reported = [one for one in judged if half in (one.triple.half, "all")]
        if hearing is not None:
            rest = [one for one in judged if half not in (one.triple.half, "all")] or judged
            calibrations[critic.name] = _calibrations(critic, rest)
            reported = [_with_probe(one, calibrations[critic.name]) for one in reported]
        own = OWN_KINDS[critic.name]
        quiet = _plain_scores(critic, plain, embed)
        for source in SOURCES:
            told = [(one.triple, one.scores[source]) for one in reported if source in one.scores]
            if not told:
                continue
            mine = [(triple, pair) for triple, pair in told if triple.kind in own]
            good = [pair[0] for _, pair in told] + quiet.get(source, [])
            rows.append(
                Row(
                    critic.name,
                    source,
                    _auc(mine),
                    _auc([(triple, pair) for triple, pair in told if triple.kind not in own]),
                    _by(told, lambda triple: triple.kind),
                    sum((a > b) + 0.5 * (a == b) for _, (a, b) in mine) / max(1, len(mine)),
                    len(mine),
                    None if source == "probe" else _under([pair[1] for _, pair in mine], critic.threshold),
                    None if source == "probe" else _under(good, critic.threshold),
                )
            )
            languages.setdefault(critic.name, {})[source] = _by(mine, lambda triple: triple.good.lang)
        for name in critic.weights:
            told = [(one.triple, one.signals[name]) for one in reported if name in one.signals]
            signals.setdefault(critic.name, {})[name] = _by(told, lambda triple: triple.kind)
    counted = {kind: sum(one.kind == kind and half in (one.half, "all") for one in triples) for kind in KINDS}
    return CriticsReport(
        machine, half, counted, len(plain), embed is not None, model, tuple(rows), languages, signals, calibrations
    )


_Told = Sequence[tuple[Triple, tuple[float, float]]]


def _auc(told: _Told) -> float:
    return auc([pair[0] for _, pair in told], [pair[1] for _, pair in told]) if told else float("nan")


def _by(told: _Told, key: Callable[[Triple], str]) -> dict[str, float]:
    names = dict.fromkeys(key(triple) for triple, _ in told)
    return {name: _auc([one for one in told if key(one[0]) == name]) for name in names}


def _ask(
    triples: Sequence[Triple],
    critics: Sequence[Measured],
    hearing: Hearing | None,
    progress: Callable[[str], None],
) -> dict[int, dict[str, float]]:
    """Log-odds of all scenes by the id of their example and the critic's name."""
    if hearing is None:
        return {}
    examples = [example for triple in triples for example in (triple.good, triple.damaged)]
    names = [critic.name for critic in critics]

    def done(count: int) -> None:
        if count % 20 == 0:
            progress(f"the model's word on {count} of {len(examples)} scenes")

    found = hearing.odds(examples, lambda _: names, done)
    return {id(example): odds for example, odds in zip(examples, found, strict=True)}


def _judge(
    critic: Measured,
    triple: Triple,
    embed: Callable[[str], Embed | None] | None,
    odds: Mapping[int, Mapping[str, float]],
) -> _Judged:
    bare = [critic.measure(_exhibit(one, None)) for one in (triple.good, triple.damaged)]
    words = tuple(combine(one, critic.weights) for one in bare)
    measured, scores = bare, {"signals": words}
    if embed is not None:
        measured = []
        for example in (triple.good, triple.damaged):
            exhibit = _exhibit(example, embed(f"{example.request}\n{example.scene.response}"))
            measured.append(critic.measure(keeping(exhibit, critic.texts(exhibit))))
        scores = {"signals": tuple(combine(one, critic.weights) for one in measured), "signals, words only": words}
    pair = [odds.get(id(example), {}).get(critic.name) for example in (triple.good, triple.damaged)]
    asked = (pair[0], pair[1]) if pair[0] is not None and pair[1] is not None else None
    return _Judged(
        triple,
        {name: (one[0], one[1]) for name, one in scores.items()},
        {name: (measured[0][name], measured[1][name]) for name in measured[0]},
        asked,
    )


def _plain_scores(
    critic: Measured, plain: Sequence[Example], embed: Callable[[str], Embed | None] | None
) -> dict[str, list[float]]:
    words = [combine(critic.measure(_exhibit(one, None)), critic.weights) for one in plain]
    if embed is None:
        return {"signals": words}
    scores = []
    for one in plain:
        exhibit = _exhibit(one, embed(f"{one.request}\n{one.scene.response}"))
        scores.append(combine(critic.measure(keeping(exhibit, critic.texts(exhibit))), critic.weights))
    return {"signals": scores, "signals, words only": words}


def _under(scores: Sequence[float], threshold: float) -> float:
    return sum(score < threshold for score in scores) / max(1, len(scores))


def _exhibit(example: Example, embed: Embed | None) -> Exhibit:
    return Exhibit(example.request, example.goal, example.lang, example.scene, embed=embed)


def _calibrations(critic: Measured, judged: Sequence[_Judged]) -> dict[str, Calibration]:
    found = {}
    for lang in sorted({one.triple.good.lang for one in judged}):
        mine = [
            one
            for one in judged
            if one.triple.good.lang == lang and one.odds is not None and one.triple.kind in OWN_KINDS[critic.name]
        ]
        if not mine:
            continue
        told = _auc([(one.triple, one.scores["signals"]) for one in mine])
        odds = [one.odds for one in mine if one.odds is not None]
        found[lang] = fit_probe([good for good, _ in odds], [bad for _, bad in odds], told).calibration
    return found


def _with_probe(one: _Judged, calibrations: Mapping[str, Calibration]) -> _Judged:
    """The scores of the probe and of both beside those of the signals."""
    if one.odds is None:
        return one
    signals = one.scores["signals"]
    calibration = calibrations.get(one.triple.good.lang, Calibration())
    weight = calibration.weight

    def both(place: int) -> float:
        return (1.0 - weight) * signals[place] + weight * probability(one.odds[place], calibration)  # type: ignore[index]

    scores = {**one.scores, "probe": one.odds, "both": (both(0), both(1))}
    return replace(one, scores=scores)
