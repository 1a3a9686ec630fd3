"""The field architecture (`field_architecture.yaml`): zones and links, archetypes, phases, and how the field moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, Strict

from ltm_edge.errors import SchemaError
from ltm_edge.schemas.check import (
    STRICT,
    Fraction,
    LangText,
    LangTexts,
    Name,
    RelativeFile,
    Whole,
    check_record,
    nearest,
    take_root,
)
from ltm_edge.schemas.template import name_problem
from ltm_edge.schemas.yaml import YamlDocument, load_yaml

__all__ = [
    "Archetype",
    "ChannelZone",
    "Choosing",
    "Dynamics",
    "FieldArchitecture",
    "Link",
    "MemoryZone",
    "PhaseAnchors",
    "Routes",
    "WillZone",
    "Zone",
    "parse_field",
]


def _sayable(value: Mapping[str, str]) -> Mapping[str, str]:
    for name in value.values():
        if complaint := name_problem(name):
            raise ValueError(f"the name {name!r} {complaint}")
        if len(name) > 60:
            raise ValueError(f"the name {name!r} has {len(name)} characters; at most 60")
    return value


@dataclass(frozen=True, slots=True)
class ZoneSampling:
    """Sampling keys that a channel sets for its own drafts; None keeps the overlay's value."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    temperature: Annotated[float, Strict(), Field(ge=0.0, le=5.0)] | None = None
    top_k: Annotated[Whole, Field(ge=0, le=100_000)] | None = None
    top_p: Annotated[float, Strict(), Field(gt=0.0, le=1.0)] | None = None
    min_p: Fraction | None = None
    repeat_penalty: Annotated[float, Strict(), Field(ge=0.1, le=10.0)] | None = None
    dry_multiplier: Annotated[float, Strict(), Field(ge=0.0, le=10.0)] | None = None

    def to_dict(self) -> dict[str, float]:
        """Only the keys that are set."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


_Number = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,2})$")]
Gain = Annotated[float, Strict(), Field(ge=-16.0, le=16.0)]
HeadGates: TypeAlias = Annotated[Mapping[_Number, Mapping[_Number, Gain]], Field(max_length=1000)]
Prior = Annotated[float, Strict(), Field(ge=-1.0, le=1.0)]


@dataclass(frozen=True, slots=True)
class ChannelZone:
    """A semantic channel (семантический канал): one way of answering.

    At the level of heads it acts through its adapter: a learned LoRA, and gains on single heads of the attention
    output by layer and head (`head_gates`), both of which `ltm-edge convert` makes into one file. `archetypes` says how
    much an archetype of the request favours it (1) or speaks against it (-1).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["channel"]
    directive: LangText = field(default_factory=dict)
    anchors: LangTexts = field(default_factory=dict)
    adapter: RelativeFile | None = None
    head_gates: HeadGates = field(default_factory=dict)
    max_scale: Annotated[float, Strict(), Field(ge=0.0, le=4.0)] = 1.0
    sampling: ZoneSampling = field(default_factory=ZoneSampling)
    archetypes: Mapping[Name, Prior] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemoryZone:
    """Where recalled scenes enter the field."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["memory"]


@dataclass(frozen=True, slots=True)
class WillZone:
    """The vector of will (вектор воли): the goal that persists across turns, fading by `decay` each turn."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["will"]
    decay: Fraction = 0.9


Zone: TypeAlias = ChannelZone | MemoryZone | WillZone


@dataclass(frozen=True, slots=True)
class Link:
    """What stirs in zone `source` also stirs zone `target`, by `weight`. In the file: from, to."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Annotated[Name, Field(alias="from")]
    target: Annotated[Name, Field(alias="to")]
    weight: Annotated[float, Strict(), Field(ge=-1.0, le=1.0)]


@dataclass(frozen=True, slots=True)
class Archetype:
    """An archetype: texts to recognise it by, and its name in each language."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    anchors: LangTexts = field(default_factory=dict)
    names: Annotated[LangText, AfterValidator(_sayable)] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PhaseAnchors:
    """Texts to recognise a phase by."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    anchors: LangTexts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dynamics:
    """How the field moves (`ltm_edge.field.state`, `ltm_edge.field.gravity`)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    rate: Fraction = 0.5
    gravity: Fraction = 0.05
    capture: Fraction = 0.25
    reached: Fraction = 0.6
    wish: Fraction = 0.5


@dataclass(frozen=True, slots=True)
class Routes:
    """How activation spreads over the links, and how much archetypes weigh (`ltm_edge.field.router`)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    steps: Annotated[Whole, Field(ge=0, le=16)] = 2
    damping: Fraction = 0.2
    prior: Fraction = 0.05


@dataclass(frozen=True, slots=True)
class Choosing:
    """What decides about a template, an archetype or a phase (`ltm_edge.field.lift`, `ltm_edge.field.choose`)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    nearest: Annotated[Whole, Field(ge=1, le=100)] = 3
    letters: Annotated[float, Strict(), Field(ge=0.0, le=10.0)] = 1.0
    field: Fraction = 0.2
    phase: Fraction = 0.1
    phase_inferred: Fraction = 0.02
    archetype: Fraction = 0.02
    refuse_above: Fraction = 0.57
    refuse_above_letters: Fraction = 0.3
    archetypes: Annotated[Whole, Field(ge=0, le=8)] = 2
    archetype_above: Fraction = 0.1
    scene_above: Fraction = 0.6


@dataclass(frozen=True, slots=True)
class FieldArchitecture:
    """The field's map: zones of thinking (зоны мышления), how they are linked, and how the field moves.

    `wishes` are beginnings that make the rest of a clause a goal, such as "I want to", by language.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    version: Whole
    zones: Annotated[Mapping[Name, Annotated[Zone, Field(discriminator="kind")]], Field(min_length=1, max_length=64)]
    links: Annotated[tuple[Link, ...], Field(max_length=1024)] = ()
    archetypes: Annotated[Mapping[Name, Archetype], Field(max_length=256)] = field(default_factory=dict)
    phases: Mapping[Literal["myth", "drama", "logic", "irony"], PhaseAnchors] = field(default_factory=dict)
    wishes: LangTexts = field(default_factory=dict)
    dynamics: Dynamics = field(default_factory=Dynamics)
    routes: Routes = field(default_factory=Routes)
    choosing: Choosing = field(default_factory=Choosing)

    @property
    def channels(self) -> dict[str, ChannelZone]:
        """The channels among the zones, in the order of the file."""
        return {name: zone for name, zone in self.zones.items() if isinstance(zone, ChannelZone)}

    @property
    def decay(self) -> float:
        """What is left of the will's pull after a turn; 0 where there is no zone of will."""
        return max((zone.decay for zone in self.zones.values() if isinstance(zone, WillZone)), default=0.0)

    def archetype_names(self, lang: str) -> dict[str, str]:
        """Archetype id to its name in `lang`; the id itself, with blanks for underscores, where it has none."""
        return {key: one.names.get(lang, key.replace("_", " ")) for key, one in self.archetypes.items()}


def _check_names(document: YamlDocument, architecture: FieldArchitecture) -> None:
    problems = []
    seen: dict[tuple[str, str], int] = {}
    for i, link in enumerate(architecture.links):
        for key, name in (("from", link.source), ("to", link.target)):
            if name not in architecture.zones:
                message = f"no zone named {name!r}{nearest(name, list(architecture.zones))}"
                problems.append(document.problem(("field", "links", i, key), message))
        pair = (link.source, link.target)
        if link.source == link.target:
            problems.append(document.problem(("field", "links", i), f"links {link.source} to itself"))
        elif pair in seen:
            message = f"links {link.source} to {link.target} again, as links[{seen[pair]}] does"
            problems.append(document.problem(("field", "links", i), message))
        seen.setdefault(pair, i)
    for name, zone in architecture.channels.items():
        for archetype in zone.archetypes:
            if archetype not in architecture.archetypes:
                message = f"no archetype named {archetype!r}{nearest(archetype, list(architecture.archetypes))}"
                problems.append(document.problem(("field", "zones", name, "archetypes", archetype), message))
    if problems:
        raise SchemaError(problems)


def parse_field(text: str | bytes, where: str = "<string>") -> FieldArchitecture:
    """The field architecture in a YAML file.

    Raises:
        SchemaError: with all problems and their lines.
    """
    document = load_yaml(text, where)
    take_root(document, "field")
    architecture: FieldArchitecture = check_record(FieldArchitecture, document, ("field",))
    _check_names(document, architecture)
    return architecture
