"""Records of the scene memory: what is stored, what a recall returns, and the numbers that govern both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ltm_edge.errors import InputError
from ltm_edge.scene.record import Scene

if TYPE_CHECKING:
    from ltm_edge.schemas.overlay import Memory as MemoryOverlay

__all__ = [
    "ARC",
    "LEVELS",
    "LORE",
    "SAGA",
    "SCENE",
    "Added",
    "Forgotten",
    "Link",
    "Policy",
    "Recall",
    "Stats",
    "StoredScene",
    "from_iso",
    "microseconds",
    "read_iso",
    "to_iso",
]

SCENE, ARC, SAGA = 0, 1, 2
LEVELS = ("scene", "arc", "saga")

LINK_KINDS = ("predecessor", "recalled", "part_of", "supersedes")

LORE = ("card", "lorebook")  # provenance of what was written beforehand and not told

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(at: datetime | float | int | None) -> int:
    """A moment as microseconds since 1970 in UTC; None is the present one, a number is seconds.

    Raises:
        InputError: a time without a zone, or outside the years 1 to 9999.
    """
    if at is None:
        return (datetime.now(timezone.utc) - _EPOCH) // _MICROSECOND
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise InputError(f"time {at.isoformat()}: has no time zone; give one, such as +00:00")
        return (at - _EPOCH) // _MICROSECOND
    if not math.isfinite(at):
        raise InputError(f"time {at!r}: not a number of seconds since 1970")
    try:
        return (_EPOCH + timedelta(seconds=at) - _EPOCH) // _MICROSECOND
    except OverflowError:
        raise InputError(f"time {at!r}: outside the years 1 to 9999") from None


def to_iso(moment: int) -> str:
    """Microseconds since 1970 as ISO 8601 in UTC, such as ``2026-01-31T09:30:00.000000+00:00``."""
    return (_EPOCH + timedelta(microseconds=moment)).isoformat(timespec="microseconds")


def read_iso(text: str) -> datetime:
    """An ISO 8601 date or time, with its zone where it has one; ``Z`` is one, which Python 3.10 doesn't know.

    Raises:
        ValueError: it is no such time.
    """
    return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)


def from_iso(text: str) -> int:
    """The reverse of :func:`to_iso`; takes every ISO 8601 time with a zone.

    Raises:
        ValueError: it is no such time.
    """
    moment = read_iso(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return (moment - _EPOCH) // _MICROSECOND


@dataclass(frozen=True, slots=True)
class StoredScene:
    """A scene in memory.

    Attributes:
        id: its number in this store; never used twice.
        uid: its name across stores, 32 hexadecimal digits.
        scene: the record.
        text: what the person said; empty where nobody said anything (summaries, lore).
        keys: further words it is found by (a lorebook's keys).
        level: 0 scene, 1 arc, 2 saga.
        session, template, phase: where it comes from; empty or None where that is unknown.
        provenance: how it came in: ``said``, ``edited``, ``summary``, ``card``, ``lorebook``, ``imported`` …
        created: when it was told, microseconds since 1970 in UTC.
        strength: its strength at ``strengthened``, from 0 to 1; it decays from there.
        pinned: always a candidate, never decays.
        echo: its response only repeats scenes that were recalled for it; it is never found by that.
        superseded_by, superseded_at: the newer scene that took its place, and when.
    """

    id: int
    uid: str
    scene: Scene
    text: str
    keys: tuple[str, ...]
    level: int
    session: str
    template: str
    phase: str | None
    provenance: str
    created: int
    strength: float
    strengthened: int
    pinned: bool
    echo: bool
    superseded_by: int | None
    superseded_at: int | None

    @property
    def created_at(self) -> datetime:
        """When it was told."""
        return _EPOCH + timedelta(microseconds=self.created)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "id": self.id,
            "uid": self.uid,
            "level": LEVELS[self.level],
            "created": to_iso(self.created),
            "session": self.session,
            "template": self.template,
            "phase": self.phase,
            "provenance": self.provenance,
            "strength": self.strength,
            "pinned": self.pinned,
            "echo": self.echo,
            "keys": list(self.keys),
            "superseded_by": self.superseded_by,
            "superseded_at": None if self.superseded_at is None else to_iso(self.superseded_at),
            "text": self.text,
            "scene": self.scene.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two scenes.

    Attributes:
        source, target: ids. The source is the younger one, and the member of an arc.
        kind: ``predecessor`` (the target came before in the session), ``recalled`` (the target was recalled for the
            source), ``part_of`` (the target sums the source up), ``supersedes`` (the target gave way to the source).
        weight: from 0 to 1.
    """

    source: int
    target: int
    kind: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a scene that was given to the memory.

    Attributes:
        id: the scene that holds it now.
        status: ``added``; ``strengthened`` if an older scene says the same; ``echo`` if all of it was recalled text,
            so that nothing new was stored.
        superseded: ids of older scenes that gave way to it.
        strengthened: ids of recalled scenes whose words the response took up.
    """

    id: int
    status: str
    superseded: tuple[int, ...] = ()
    strengthened: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a forget takes with it (or took).

    Attributes:
        scenes: what was asked for.
        versions: older versions of them, replaced by edits.
        summaries: arcs and sagas that were written from them.
    """

    scenes: tuple[StoredScene, ...]
    versions: tuple[StoredScene, ...] = ()
    summaries: tuple[StoredScene, ...] = ()

    @property
    def all(self) -> tuple[StoredScene, ...]:
        """Everything that goes."""
        return (*self.scenes, *self.versions, *self.summaries)


@dataclass(frozen=True, slots=True)
class Recall:
    """A scene that came back.

    Attributes:
        scene: the scene.
        score: its resonance, from 0 to 1.
        parts: the score's parts by name, before their weights; empty for scenes that came along a chain.
        via: how it got here: ``found``, ``predecessor``, ``successor``, ``arc``, ``newer``, ``original``.
        of: the id of the hit that brought it, its own where it was found itself.
        tokens: tokens that its note takes.
    """

    scene: StoredScene
    score: float
    parts: Mapping[str, float]
    via: str
    of: int
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in a turn's trace."""
        return {
            "id": self.scene.id,
            "uid": self.scene.uid,
            "created": to_iso(self.scene.created),
            "score": round(self.score, 4),
            "parts": {name: round(value, 4) for name, value in self.parts.items()},
            "via": self.via,
            "of": self.of,
            "tokens": self.tokens,
        }


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of a memory.

    Attributes:
        scenes: scenes of level 0, the superseded ones included.
        arcs, sagas: summaries.
        links, sessions, pinned, superseded, echoes: what the words say.
        unembedded: scenes without a vector of any present embedder; they are found by their words only.
        bytes: size of the folder's files.
        embedders: vectors by embedder id.
        first, last: when the oldest and the newest scene were told (ISO 8601), None where there is none.
    """

    scenes: int
    arcs: int
    sagas: int
    links: int
    sessions: int
    pinned: int
    superseded: int
    echoes: int
    unembedded: int
    bytes: int
    embedders: Mapping[str, int]
    first: str | None
    last: str | None


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers that govern a memory. The overlay sets the first group, see :meth:`from_overlay`.

    Attributes:
        recall: hits wanted.
        chain_depth: links followed from each hit, in both directions.
        budget_tokens: tokens that the recalled notes may take in all.
        half_life_days: after so long the recency part of a score, and an unused strength, are halved.
        weights: weights of the score's parts by name; they sum to 1.
        context: share of the score of a scene's surroundings that is lent to it (``memory/surroundings.py``).
        later, now: what the latest scene of a story gains over the first, and the more where the present is asked for.
        cause: what the best scene loses where a cause is asked for.
        feeling: the weight of tension is multiplied by it where a feeling is asked for.
        story: from this likeness two scenes belong to one story.
        candidates: scenes that are rescored, at most.
        diversity: 1 takes the best scores, 0 the least alike (maximal marginal relevance).
        floor: hits that score less than this aren't returned.
        least_meaning: a turn is only reminded of scenes whose meaning is at least so like the request's.
        said_share: share of what the person said in the meaning of a scene; the rest is the response's.
        echo_overlap: from this share of three-word sequences taken from recalled scenes, a text is a repetition.
        duplicate_cosine, duplicate_words: from this likeness of meaning and of words two texts say the same.
        strength, growth: strength of a new scene, and the share of the way to 1 that each accepted use adds.
        arc_cosine, arc_min, arc_max: likeness of neighbours in an arc, and its number of scenes.
        saga_cosine: likeness of arcs in a saga.
    """

    recall: int = 4
    chain_depth: int = 2
    budget_tokens: int = 384
    half_life_days: float = 30.0
    weights: Mapping[str, float] = field(
        default_factory=lambda: {
            "meaning": 0.61,
            "words": 0.13,
            "tension": 0.09,
            "centre": 0.04,
            "archetype": 0.08,
            "recency": 0.03,
            "strength": 0.02,
        }
    )
    context: float = 0.5
    later: float = 0.035
    now: float = 0.05
    cause: float = 0.08
    feeling: float = 5.0
    story: float = 0.35
    candidates: int = 256
    diversity: float = 0.98
    floor: float = 0.0
    least_meaning: float = 0.28
    said_share: float = 0.7
    echo_overlap: float = 0.6
    duplicate_cosine: float = 0.95
    duplicate_words: float = 0.9
    strength: float = 0.5
    growth: float = 0.25
    arc_cosine: float = 0.3
    arc_min: int = 3
    arc_max: int = 12
    saga_cosine: float = 0.5

    @staticmethod
    def from_overlay(memory: MemoryOverlay) -> Policy:
        """The policy of an overlay's ``memory`` part."""
        weights = memory.weights
        return Policy(
            recall=memory.recall,
            chain_depth=memory.chain_depth,
            budget_tokens=memory.budget_tokens,
            half_life_days=memory.half_life_days,
            least_meaning=memory.least_meaning,
            weights={
                "meaning": weights.meaning,
                "words": weights.words,
                "tension": weights.tension,
                "centre": weights.center,
                "archetype": weights.archetype,
                "recency": weights.recency,
                "strength": weights.strength,
            },
        )
