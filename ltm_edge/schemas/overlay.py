"""The overlay (`ltm_overlay_config.yaml`): which critics, loop limits, consilium, memory and forms a bundle uses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Strict, Tag

from ltm_edge.schemas.check import (
    STRICT,
    Flag,
    Fraction,
    Language,
    Name,
    RelativeFile,
    Text,
    Whole,
    check_record,
    nearest,
    take_root,
)
from ltm_edge.schemas.yaml import load_yaml

__all__ = [
    "CRITICS",
    "Calibration",
    "Consilium",
    "CriticName",
    "Critics",
    "Embedder",
    "InsightSeeker",
    "InsightWeights",
    "Lifting",
    "Memory",
    "MemoryWeights",
    "Obstructio",
    "ObstructioWeights",
    "Overlay",
    "Questions",
    "Recursia",
    "RecursiaWeights",
    "ResponseForm",
    "Routing",
    "Sampling",
    "SelfLoopLimits",
    "parse_overlay",
]


def _auto(value: object) -> object:
    return {True: "always", False: "never"}[value] if isinstance(value, bool) else value


def _off(value: object) -> object:
    return "off" if value is False else value  # YAML reads a plain off as false


Switch = Annotated[Literal["auto", "always", "never"], BeforeValidator(_auto)]


@dataclass(frozen=True, slots=True)
class SelfLoopLimits:
    """Bounds of the self-loop (цикл самопереформулирования): draft, critics, revise, accept the best.

    `seconds` and `tokens` bound all passes of a turn together; the first draft always has room for a whole document.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    enabled: Flag = True
    max_passes: Annotated[Whole, Field(ge=1, le=8)] = 2
    accept: Fraction = 0.6
    seconds: Annotated[float, Strict(), Field(gt=0.0, le=86400.0)] | None = None
    tokens: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None


CriticName = Literal["insight_seeker", "obstructio", "recursia"]
CRITICS: tuple[CriticName, ...] = ("insight_seeker", "obstructio", "recursia")


@dataclass(frozen=True, slots=True)
class InsightWeights:
    """How much of INSIGHT-SEEKER's score each signal can take away alone; see docs/critics.md."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    new_to_request: Fraction = 0.8
    new_to_memory: Fraction = 0.6
    own_words: Fraction = 0.95
    takes_up: Fraction = 0.3
    concrete: Fraction = 0.5


@dataclass(frozen=True, slots=True)
class ObstructioWeights:
    """How much of OBSTRUCTIO's score each signal can take away alone; see docs/critics.md."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    to_request: Fraction = 0.9
    to_center: Fraction = 0.7
    both_poles: Fraction = 0.4
    direct: Fraction = 0.7
    consistent: Fraction = 0.6
    finished: Fraction = 0.95
    agreed: Fraction = 0.2


@dataclass(frozen=True, slots=True)
class RecursiaWeights:
    """How much of RECURSIA's score each signal can take away alone; see docs/critics.md."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    new_phrases: Fraction = 0.9
    new_sentences: Fraction = 0.8
    new_to_earlier: Fraction = 1.0
    new_to_drafts: Fraction = 1.0
    depth: Fraction = 0.5


@dataclass(frozen=True, slots=True)
class InsightSeeker:
    """INSIGHT-SEEKER: a draft must add at least `threshold` beyond the request and the memory."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    enabled: Flag = True
    threshold: Fraction = 0.5
    weights: InsightWeights = field(default_factory=InsightWeights)


@dataclass(frozen=True, slots=True)
class Obstructio:
    """OBSTRUCTIO: how freely a draft speaks to its centre; under `refuse_below` the answer is a refusal."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    enabled: Flag = True
    threshold: Fraction = 0.3
    refuse_below: Fraction = 0.02
    weights: ObstructioWeights = field(default_factory=ObstructioWeights)

    def __post_init__(self) -> None:
        if self.refuse_below > self.threshold:
            raise ValueError(f"refuse_below {self.refuse_below:g} is over threshold {self.threshold:g}")


@dataclass(frozen=True, slots=True)
class Recursia:
    """RECURSIA: how alike a draft may be to earlier scenes and drafts, and how deep a revision may go."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    enabled: Flag = True
    threshold: Fraction = 0.35
    max_similarity: Fraction = 0.92
    max_depth: Annotated[Whole, Field(ge=1, le=16)] = 3
    weights: RecursiaWeights = field(default_factory=RecursiaWeights)


@dataclass(frozen=True, slots=True)
class Critics:
    """The three critics, and further ones by the names of their entry points (group `ltm_edge.critics`).

    A further critic that takes more than `patience` seconds is left out.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    insight_seeker: InsightSeeker = field(default_factory=InsightSeeker)
    obstructio: Obstructio = field(default_factory=Obstructio)
    recursia: Recursia = field(default_factory=Recursia)
    plugins: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    patience: Annotated[float, Strict(), Field(gt=0.0, le=60.0)] = 2.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a probe's log-odds say for one model, critic and language: sigmoid(slope * (log-odds - shift)).

    `weight`: the probe's share of the score; the signals have the rest. `ltm-edge calibrate` finds all three.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    shift: Annotated[float, Strict(), Field(ge=-1000.0, le=1000.0)] = 0.0
    slope: Annotated[float, Strict(), Field(ge=0.0, le=1000.0)] = 1.0
    weight: Fraction = 0.0


@dataclass(frozen=True, slots=True)
class Consilium:
    """The consilium (консилиум): several channels draft in parallel; `auto`: if routing's entropy is over `entropy`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    enabled: Switch = "auto"
    channels: Annotated[Whole, Field(ge=2, le=16)] = 4
    entropy: Fraction = 0.85


@dataclass(frozen=True, slots=True)
class Routing:
    """Soft routing over channels: softmax temperature, quantisation step, and the levels it acts on."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    temperature: Annotated[float, Strict(), Field(gt=0.0, le=10.0)] = 0.04
    step: Annotated[float, Strict(), Field(gt=0.0, le=1.0)] = 0.25
    inputs: Flag = True
    heads: Flag = True


@dataclass(frozen=True, slots=True)
class Lifting:
    """How a request is lifted to a PVQ: `off`, `fast` (by likeness to anchors), or `model`, which asks the model for
    tension, goal and centre too, under a small grammar.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    infer: Annotated[Literal["off", "fast", "model"], BeforeValidator(_off)] = "fast"


@dataclass(frozen=True, slots=True)
class MemoryWeights:
    """Parts of the resonance score; they sum to 1."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    meaning: Fraction = 0.61
    words: Fraction = 0.13
    tension: Fraction = 0.09
    center: Fraction = 0.04
    archetype: Fraction = 0.08
    recency: Fraction = 0.03
    strength: Fraction = 0.02

    def __post_init__(self) -> None:
        total = math.fsum(
            (self.meaning, self.words, self.tension, self.center, self.archetype, self.recency, self.strength)
        )
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the weights sum to {total:g}; they must sum to 1")


@dataclass(frozen=True, slots=True)
class Memory:
    """What is recalled into a turn: scenes, links followed, tokens spent, and how fast scenes fade."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    recall: Annotated[Whole, Field(ge=0, le=64)] = 4
    chain_depth: Annotated[Whole, Field(ge=0, le=16)] = 2
    budget_tokens: Annotated[Whole, Field(ge=0, le=65536)] = 384
    half_life_days: Annotated[float, Strict(), Field(gt=0.0, le=36500.0)] = 30.0
    least_meaning: Fraction = 0.28
    weights: MemoryWeights = field(default_factory=MemoryWeights)


@dataclass(frozen=True, slots=True)
class ResponseForm:
    """The form of an answer where the request asks for none."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    form: Literal["auto", "text", "yaml", "json", "image"] = "auto"
    self_commentary: Switch = "auto"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; a channel may override single keys."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    temperature: Annotated[float, Strict(), Field(ge=0.0, le=5.0)] = 0.4
    top_k: Annotated[Whole, Field(ge=0, le=100_000)] = 40
    top_p: Annotated[float, Strict(), Field(gt=0.0, le=1.0)] = 0.95
    min_p: Fraction = 0.05
    repeat_penalty: Annotated[float, Strict(), Field(ge=0.1, le=10.0)] = 1.1
    repeat_last_n: Annotated[Whole, Field(ge=0, le=65536)] = 64
    dry_multiplier: Annotated[float, Strict(), Field(ge=0.0, le=10.0)] = 0.8
    max_tokens: Annotated[Whole, Field(ge=1, le=65536)] = 400
    seed: Annotated[Whole, Field(ge=0, le=0xFFFF_FFFE)] | None = None


@dataclass(frozen=True, slots=True)
class Embedder:
    """What embeds texts: a GGUF file of the bundle, mean-pooled states of the base model, else the demo embedder."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    file: RelativeFile | None = None
    base: Flag = False

    def __post_init__(self) -> None:
        if self.file is not None and self.base:
            raise ValueError("has both file and base: true; keep one")


_SIGNALS = tuple(one.name for of in (InsightWeights, ObstructioWeights, RecursiaWeights) for one in fields(of))


def _signal(value: str) -> str:
    if value not in _SIGNALS:
        raise ValueError(f"no signal {value!r}{nearest(value, _SIGNALS)}")
    return value


def _shape(value: Any) -> str:
    return "by_signal" if isinstance(value, Mapping) else "listed"


Questions = Annotated[
    Annotated[tuple[Text, ...], Tag("listed")]
    | Annotated[Mapping[Annotated[str, AfterValidator(_signal)], Text], Tag("by_signal")],
    Discriminator(_shape),
]
LangQuestions = Mapping[Language, Questions]


@dataclass(frozen=True, slots=True)
class Overlay:
    """The overlay of a bundle; every part has the packaged default's value where the file is silent.

    `few_shot`: most examples of the first template at the head of a session; a model trained on scenes needs none.
    `critic_questions`: by critic and language, one for each of its signals, or a list from which any is taken.
    `calibration`: of the critics' probes; where there is none the model isn't asked.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    version: Whole
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    pvq: Lifting = field(default_factory=Lifting)
    self_loop: SelfLoopLimits = field(default_factory=SelfLoopLimits)
    critics: Critics = field(default_factory=Critics)
    consilium: Consilium = field(default_factory=Consilium)
    routing: Routing = field(default_factory=Routing)
    memory: Memory = field(default_factory=Memory)
    response: ResponseForm = field(default_factory=ResponseForm)
    sampling: Sampling = field(default_factory=Sampling)
    embedder: Embedder = field(default_factory=Embedder)
    default_template: Name | None = None
    few_shot: Annotated[Whole, Field(ge=0, le=16)] = 2
    languages: Annotated[tuple[Language, ...], Field(min_length=1, max_length=64)] = ("en", "ru")
    critic_questions: Mapping[CriticName, LangQuestions] = field(default_factory=dict)
    calibration: Mapping[CriticName, Mapping[Language, Calibration]] = field(default_factory=dict)


def parse_overlay(text: str | bytes, where: str = "<string>") -> Overlay:
    """The overlay in a YAML file.

    Raises:
        SchemaError: with all problems and their lines.
    """
    document = load_yaml(text, where)
    take_root(document, "ltm_overlay")
    overlay: Overlay = check_record(Overlay, document, ("ltm_overlay",))
    return overlay
