"""Quality of recall: hand-written stories go into one memory, then questions about them are asked.

Every story is a distractor of every other. The scenes are added in the order of their dates, each with what a turn
would have recalled for it, so that hygiene, superseding and links act as they do in use. Resonance is measured beside
the cosine of the same embeddings and beside BM25 over the same words, and without each of its terms.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ltm_edge.bench.report import Report, this_machine
from ltm_edge.bench.stories import HALVES, KINDS, Question, Story, Told
from ltm_edge.bench.table import render
from ltm_edge.memory.protocols import Embedder, Floats
from ltm_edge.memory.recall import estimate_tokens, note
from ltm_edge.memory.records import Policy
from ltm_edge.memory.store import STORE_NAME, SceneStore
from ltm_edge.memory.words import match_query
from ltm_edge.scene_memory import SceneMemory

__all__ = ["Known", "RecallReport", "Score", "bench_recall", "tell", "variants"]

_DEEP = 5  # recall@1 and recall@5
_WORDS = 64


@dataclass(frozen=True, slots=True)
class Score:
    """What one way of finding scenes came to on one set of questions.

    Attributes:
        asked: number of questions.
        at1, at5: share of them whose right scene, or one of several, came first, or among the first five.
        chains: number of them that have a chain.
        chain: share of these whose whole chain is in what came back within the budget of a turn.
        links: mean share of a chain's scenes that is.
    """

    asked: int
    at1: float
    at5: float
    chains: int
    chain: float
    links: float


@dataclass(frozen=True, slots=True)
class RecallReport(Report):
    """All ways on one half of the stories.

    Attributes:
        half: ``tune``, ``report`` or ``all``.
        stories, scenes: how many; all scenes of all stories are in memory, whatever the half.
        superseded: (older, newer) scenes of all stories as ``story/scene``, for what gave way.
        merged: scenes that were taken for repetitions.
        rows: scores by way, then by kind of question (``all`` for all kinds, ``ru`` for the Russian ones apart).
        machine: what times would depend on.
    """

    half: str
    stories: int
    scenes: int
    superseded: tuple[tuple[str, str], ...]
    merged: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Score]]
    machine: dict[str, Any]

    def lines(self) -> list[str]:
        """The report for people."""
        first = next(iter(self.rows.values()))
        kinds = [kind for kind in ("all", *KINDS, "ru") if kind in first]
        head = ["recall@1 / @5", *(f"{kind} ({first[kind].asked})" for kind in kinds)]
        body = [
            [way, *(f"{scores[kind].at1:.2f} / {scores[kind].at5:.2f}" for kind in kinds)]
            for way, scores in self.rows.items()
        ]
        chains = [
            [way, f"{scores['all'].chain:.2f}", f"{scores['all'].links:.2f}"]
            for way, scores in self.rows.items()
            if not way.startswith(" ")
        ]
        return [
            f"{self.stories} stories of half '{self.half}', {self.scenes} scenes in memory, "
            f"{len(self.superseded)} superseded, {len(self.merged)} taken for repetitions",
            "",
            render(head, body),
            "",
            render([f"chains ({first['all'].chains})", "whole", "scenes"], chains),
        ]


class Known:
    """An embedder that has embedded everything before, in large batches; what is new it asks the real one for."""

    def __init__(self, embedder: Embedder, texts: Iterable[str]) -> None:
        self._embedder = embedder
        wanted = list(dict.fromkeys(texts))
        self._vectors: dict[str, Floats] = dict(zip(wanted, embedder.embed(wanted), strict=True))

    @property
    def dim(self) -> int:
        """Length of its vectors."""
        return self._embedder.dim

    @property
    def id(self) -> str:
        """Name of the vector space."""
        return self._embedder.id

    def covers(self, text: str, /) -> bool:
        """Whether its vocabulary can represent the text."""
        return self._embedder.covers(text)

    def embed(self, texts: list[str], /) -> Floats:
        """Vectors of the texts, float32 [n, dim]."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self._embedder.embed(new), strict=True))
        return np.stack([self._vectors[text] for text in texts])


def texts_of(stories: Sequence[Story]) -> list[str]:
    """Everything that is embedded when stories are told and asked about."""
    found = []
    for story in stories:
        for one in story.scenes:
            found += [one.text, one.scene.response, one.scene.tension, one.scene.resonance_center]
        found += [question.ask for question in story.questions]
    return found


def variants(policy: Policy) -> dict[str, Policy]:
    """The policy, and the policy without each of its terms; names of the latter begin with a blank."""
    found = {"resonance": policy}
    for name, weight in policy.weights.items():
        if weight > 0:
            found[f"  without {name}"] = replace(policy, weights={**policy.weights, name: 0.0})
    found["  without context"] = replace(policy, context=0.0)
    found["  without what is asked"] = replace(policy, later=0.0, now=0.0, cause=0.0, feeling=1.0)
    return found


def tell(memory: SceneMemory, stories: Sequence[Story]) -> tuple[dict[tuple[str, str], int], list[Any], list[str]]:
    """Add all scenes of all stories in the order of their dates, as turns would.

    Returns:
        The memory's number of every (story, scene); pairs (older, newer) of superseded scenes; repetitions.
    """
    told: list[tuple[Story, Told]] = [(story, one) for story in stories for one in story.scenes]
    told.sort(key=lambda pair: (pair[1].at, pair[0].name))
    numbers: dict[tuple[str, str], int] = {}
    names: dict[int, str] = {}
    superseded, merged = [], []
    for story, one in told:
        before = [numbers[story.name, other.id] for other in story.scenes
                  if other.session == one.session and (story.name, other.id) in numbers]  # fmt: skip
        found = memory.recall(one.text, exclude=before, least=memory.policy.least_meaning, at=one.at)
        added = memory.add(
            one.scene,
            text=one.text,
            session=f"{story.name}/{one.session}",
            phase=one.phase,
            recalled=[hit.scene.id for hit in found],
            at=one.at,
        )
        numbers[story.name, one.id] = added.id
        name = f"{story.name}/{one.id}"
        superseded += [(names[old], name) for old in added.superseded]
        if added.status != "added":
            merged.append(name)
        names.setdefault(added.id, name)
    return numbers, superseded, merged


def bench_recall(
    stories: Sequence[Story],
    embedder: Embedder,
    half: str = "report",
    policy: Policy | None = None,
    progress: Callable[[str], None] = lambda what: None,
    ways: Mapping[str, Policy] | None = None,
) -> RecallReport:
    """Measure recall on a half of the stories, with all of them in memory.

    Args:
        stories: all of them.
        embedder: the memory's.
        half: whose questions are asked: ``tune``, ``report`` or ``all``.
        policy: the memory's numbers; None: the defaults.
        progress: gets what is measured next.
        ways: policies by name; None: :func:`variants` of the policy.
    """
    assert half in (*HALVES, "all")
    machine = this_machine()
    policy = policy or Policy()
    progress("the embedder")
    known = Known(embedder, texts_of(stories))
    asked = [(story, one) for story in stories if half in (story.half, "all") for one in story.questions]
    with tempfile.TemporaryDirectory(prefix="ltm-edge-recall-") as name:
        folder = Path(name)
        progress("telling the stories")
        with SceneMemory.open(folder, known, policy=policy) as memory:
            numbers, superseded, merged = tell(memory, stories)
        rows = {
            "cosine": _measure(asked, numbers, _cosine(stories, numbers, known, policy)),
        }
        with closing(SceneStore(folder / STORE_NAME, read_only=True)) as store:
            rows["words (BM25)"] = _measure(asked, numbers, _words(store, policy))
        for way, one in (ways if ways is not None else variants(policy)).items():
            progress(way.strip())
            with SceneMemory.open(folder, known, policy=one) as memory:
                rows[way] = _measure(asked, numbers, _Resonance(memory, chains=not way.startswith(" ")))
    told = len({story.name for story, _ in asked})
    return RecallReport(half, told, len(numbers), tuple(superseded), tuple(merged), rows, machine)


Find = Callable[[Question], tuple[list[int], list[int]]]
"""Ids for a question, best first, and the ids that come back within a turn's budget."""


def _measure(asked: Sequence[tuple[Story, Question]], numbers: Mapping[tuple[str, str], int], find: Find) -> Any:
    found: dict[str, list[tuple[bool, bool, float | None]]] = {}
    for story, question in asked:
        ranked, back = find(question)
        right = {numbers[story.name, name] for name in question.right}
        chain = [numbers[story.name, name] for name in question.chain]
        share = sum(one in back for one in chain) / len(chain) if chain else None
        verdict = (bool(right & set(ranked[:1])), bool(right & set(ranked[:_DEEP])), share)
        for key in ("all", question.kind) if story.language == "en" else ("ru",):
            found.setdefault(key, []).append(verdict)
    scores = {}
    for key, verdicts in found.items():
        chains = [share for _, _, share in verdicts if share is not None]
        scores[key] = Score(
            len(verdicts),
            sum(first for first, _, _ in verdicts) / len(verdicts),
            sum(deep for _, deep, _ in verdicts) / len(verdicts),
            len(chains),
            sum(share == 1.0 for share in chains) / max(1, len(chains)),
            sum(chains) / max(1, len(chains)),
        )
    return scores


class _Resonance:
    def __init__(self, memory: SceneMemory, chains: bool) -> None:
        self._memory = memory
        self._chains = chains

    def __call__(self, question: Question) -> tuple[list[int], list[int]]:
        hits = self._memory.recall(question.ask, _DEEP, chain_depth=0, budget_tokens=0, at=question.at)
        chained = self._chains and question.chain
        back = self._memory.recall(question.ask, at=question.at) if chained else []
        return [hit.scene.id for hit in hits], [hit.scene.id for hit in back]


def _cosine(stories: Sequence[Story], numbers: Mapping[tuple[str, str], int], known: Known, policy: Policy) -> Find:
    told = [(numbers[story.name, one.id], one) for story in stories for one in story.scenes]
    share = np.float32(policy.said_share)
    table = share * known.embed([one.text for _, one in told])
    table += (1 - share) * known.embed([one.scene.response for _, one in told])
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    costs = {number: estimate_tokens(_lines(one)) for number, one in told}

    def find(question: Question) -> tuple[list[int], list[int]]:
        order = np.argsort(-(table @ known.embed([question.ask])[0]), kind="stable")
        ranked = [told[int(i)][0] for i in order]
        return ranked, _within(ranked, costs, policy.budget_tokens)

    return find


def _lines(one: Told) -> str:
    head = f"{one.at:%Y-%m-%d}, scene: {one.scene.tension}; {one.scene.resonance_center}"
    return f"{head}\n{one.text}\n{one.scene.response}"


def _words(store: SceneStore, policy: Policy) -> Find:
    costs = {scene.id: estimate_tokens(note(scene)) for scene in store.select()}

    def find(question: Question) -> tuple[list[int], list[int]]:
        ranked = [number for number, _ in store.match(match_query(question.ask), _WORDS)]
        return ranked, _within(ranked, costs, policy.budget_tokens)

    return find


def _within(ranked: Sequence[int], costs: Mapping[int, int], budget: int) -> list[int]:
    back = []
    for number in ranked:
        budget -= costs[number]
        if budget < 0:
            break
        back.append(number)
    return back
