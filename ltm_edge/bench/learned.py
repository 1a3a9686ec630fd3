"""What a model has learned of scenes: losses, unconstrained answers, judgements, on stories it was not trained on."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Any

import numpy as np

from ltm_edge.bench.answers import Sample, closeness
from ltm_edge.bench.text_measures import distinct, repeated
from ltm_edge.bundle import Bundle
from ltm_edge.engine.decoder import Order, Sampling, Scored
from ltm_edge.errors import SchemaError
from ltm_edge.grammar import Grammar
from ltm_edge.scene.record import Scene
from ltm_edge.scene.vocabulary import Tokens
from ltm_edge.training.course import Course
from ltm_edge.training.measure import Tally, auc
from ltm_edge.training.tasks import Example, Line

__all__ = ["Learned", "Limits", "measure_learned", "samples_text"]

_CHOICES = 8  # documents among which the right next scene is to be found
_TOGETHER = 4  # answers written in common batches


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is measured: scenes for losses and judgements, answers that are written, chains for finding the next."""

    scenes: int = 40
    answers: int = 40
    chains: int = 16


@dataclass(frozen=True, slots=True)
class Learned:
    """Figures of one model.

    Attributes:
        name: of the file.
        losses: nats per token by task; of ``judge`` per judgement.
        judge_auc: chance that a good scene is judged better than a damaged one.
        retrieval: share of chains whose next scene is the likeliest of eight documents.
        accepted: share of unconstrained answers that the template's grammar accepts.
        scenes: share of them that are some scene, within its template's bounds or not.
        close: mean cosine of request and response; far: the same with the responses of others.
        distinct2: different pairs of words out of all in the responses.
        repeated: mean share of word 4-grams that stood in the same response before.
        words: mean length of a response.
        perplexity: of ordinary chats.
        samples: the answers.
    """

    name: str
    losses: dict[str, float]
    judge_auc: float
    retrieval: float
    accepted: float
    scenes: float
    close: float
    far: float
    distinct2: float
    repeated: float
    words: float
    perplexity: float
    samples: tuple[Sample, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The figures, without the answers."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "samples"}


def measure_learned(bundle: Bundle, course: Course, part: str, limits: Limits, tell: Callable[[str], None]) -> Learned:
    """Measure a model.

    Args:
        bundle: the model; prompts are those of the course, whatever overlay it has.
        course: the stories.
        part: which of them, mostly ``held-out``.
        limits: how much is measured.
        tell: is told what is being done.
    """
    model = bundle.model
    measuring = _Measuring(bundle, course, part)
    losses: dict[str, float] = {}
    for task in ("restore", "create", "hold"):
        tell(f"{bundle.path.name}: loss of {task}")
        losses[task] = measuring.loss(course.examples(model, part, (task,), limit=limits.scenes))
    tell(f"{bundle.path.name}: judgements")
    losses["judge"], judge_auc = measuring.judge(course.examples(model, part, ("judge",), limit=limits.scenes))
    tell(f"{bundle.path.name}: ordinary chats")
    losses["chat"] = measuring.loss(course.examples(model, part, ("chat",) if limits.scenes else ()))
    tell(f"{bundle.path.name}: next scenes of chains")
    retrieval = measuring.retrieval(course.examples(model, part, ("hold",)), limits.chains)
    tell(f"{bundle.path.name}: {limits.answers} answers")
    samples = measuring.answers(limits.answers)
    told = [sample.scene.response for sample in samples if sample.scene is not None]
    near, far = closeness([sample.request for sample in samples if sample.scene is not None], told)
    return Learned(
        name=bundle.path.name,
        losses=losses,
        judge_auc=judge_auc,
        retrieval=retrieval,
        accepted=_share([sample.accepted for sample in samples]),
        scenes=_share([sample.scene is not None for sample in samples]),
        close=near,
        far=far,
        distinct2=distinct(told) if told else math.nan,
        repeated=fmean(repeated(text, 4) for text in told) if told else math.nan,
        words=sum(len(text.split()) for text in told) / len(told) if told else math.nan,
        perplexity=math.exp(losses["chat"]),
        samples=tuple(samples),
    )


class _Measuring:
    """One model with what it is asked."""

    def __init__(self, bundle: Bundle, course: Course, part: str) -> None:
        from ltm_edge.engine.decoder import Decoder

        self.model = bundle.model
        self.course = course
        self.part = part
        self.sampling = bundle.overlay.sampling
        shared = {item.name for item in fields(Sampling)} & {item.name for item in fields(self.sampling)} - {"seed"}
        own: dict[str, Any] = {name: getattr(self.sampling, name) for name in shared}
        self.chain = Sampling(**own)
        self.decoder = Decoder(bundle.model)

    def loss(self, examples: Sequence[Example]) -> float:
        """Nats per token of the last answer of each example."""
        tally = Tally()
        for example in examples:
            read, answer = _last_answer(example.lines[0])
            (scored,) = self._score([(read, [answer])])
            tally.add(-float(scored.logprobs[0].sum()), len(answer))
        return tally.mean

    def judge(self, examples: Sequence[Example]) -> tuple[float, float]:
        """Nats per judgement, and the chance that a good scene is judged better than a damaged one."""
        tally = Tally()
        margins: dict[bool, list[float]] = {True: [], False: []}
        for example in examples:
            for line in example.lines:
                if line.asked is None:
                    continue
                answers = [np.array([token], np.int32) for token in line.asked]
                (scored,) = self._score([(line.tokens[:-1], answers)])
                yes, no = (float(values[0]) for values in scored.logprobs)
                right = int(line.tokens[-1]) == line.asked[0]
                tally.add(-(yes if right else no), 1)
                margins[right].append(yes - no)
        return tally.mean, auc(margins[True], margins[False])

    def retrieval(self, examples: Sequence[Example], limit: int) -> float:
        """Share of examples whose answer is the likeliest, token by token, among those of others."""
        answers = [_last_answer(example.lines[0]) for example in examples]
        picked = [number * len(examples) // limit for number in range(limit)] if limit < len(examples) else None
        hits = []
        for number in picked if picked is not None else range(len(examples)):
            rng = random.Random(f"retrieval/{examples[number].name}")
            strangers = [i for i, other in enumerate(examples) if other.story != examples[number].story]
            chosen = [number, *rng.sample(strangers, min(_CHOICES - 1, len(strangers)))]
            (scored,) = self._score([(answers[number][0], [answers[i][1] for i in chosen])])
            likely = [float(values.mean()) for values in scored.logprobs]
            hits.append(likely[0] == max(likely))
        return _share(hits)

    def answers(self, count: int) -> list[Sample]:
        """Unconstrained answers to the part's requests, evenly over it, each with the seed of its number."""
        places = [(story, index) for story in self.course.stories[self.part] for index in range(len(story.scenes))]
        if count < len(places):
            places = [places[number * len(places) // count] for number in range(count)]
        names = self.course.words.archetypes
        asked, orders = [], []
        for seed, (story, index) in enumerate(places):
            example = self.course.opening(self.model, self.part, story.name, index)
            read, _ = _last_answer(example.lines[0])
            orders.append(Order(read, self.sampling.max_tokens, replace(self.chain, seed=seed)))
            asked.append((seed, story, story.scenes[index]))
        found = []
        for at in range(0, len(orders), _TOGETHER):
            done = self.decoder.write_many(orders[at : at + _TOGETHER])
            for (seed, story, scene), written in zip(asked[at : at + _TOGETHER], done, strict=True):
                grammar = Grammar.from_template(self.course.words.templates[scene.template], names.get(story.language))
                accepted = written.complete and grammar.accepts(written.text)
                try:
                    read_scene: Scene | None = Scene.from_yaml(written.text)
                except SchemaError:
                    read_scene = None
                request = scene.pvq.text
                found.append(Sample(seed, request, scene.template, written.text, written.stop, accepted, read_scene))
        return found

    def _score(self, requests: Sequence[tuple[Tokens, Sequence[Tokens]]]) -> list[Scored]:
        return self.decoder.score(requests)


def _last_answer(line: Line) -> tuple[Tokens, Tokens]:
    """What is read before a text's last answer, and that answer."""
    read = np.flatnonzero(line.weights == 0)
    start = int(read[-1]) + 1 if len(read) else 0
    return line.tokens[:start], line.tokens[start:]


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else math.nan


def samples_text(learned: Learned) -> str:
    """The answers as they came, in Markdown."""
    accepted = sum(sample.accepted for sample in learned.samples)
    lines = [
        f"# {len(learned.samples)} answers of {learned.name}",
        "",
        "To requests of stories that were held out of training, written without any grammar, as they came: none was "
        f"chosen or changed. The template's grammar accepts {accepted} of them.",
    ]
    for sample in learned.samples:
        state = "accepted" if sample.accepted else f"not accepted, ended by {sample.stop}"
        lines += ["", f"## seed {sample.seed}, {sample.template}, {state}", ""]
        lines += [f"> {line}" for line in sample.request.split("\n")]
        lines += ["", *(f"    {line}".rstrip() for line in sample.text.rstrip("\n").split("\n"))]
    return "\n".join(lines) + "\n"
