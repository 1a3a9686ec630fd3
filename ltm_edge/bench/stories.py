"""Hand-written stories that people told over several sessions, and questions about them: the data of `bench recall`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ltm_edge.errors import InputError, SchemaError
from ltm_edge.scene.record import Scene

__all__ = ["HALVES", "KINDS", "Question", "Story", "Told", "find_stories", "half_of", "load_stories"]

KINDS = ("fact", "name", "why", "update", "feeling", "chain")
HALVES = ("tune", "report")

_BETWEEN = timedelta(minutes=3)  # from one scene of a session to the next


@dataclass(frozen=True, slots=True)
class Told:
    """One scene of a story.

    Attributes:
        id: unique in the story.
        at: when it was told.
        session: number of the session, from 0.
        text: what the person said.
        scene: the record of it, as a model would have answered.
        phase: of the template.
    """

    id: str
    at: datetime
    session: int
    text: str
    scene: Scene
    phase: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about a story, after all stories were told.

    Attributes:
        ask: in words that the story avoids.
        kind: one of :data:`KINDS`: a fact or name; the cause of something (told in another scene than its effect); what
            holds now where something else held before; a feeling; the chain of scenes that led somewhere.
        right: ids of the scenes that answer it.
        chain: ids of the scenes that tell the whole of it, in order; empty where one scene does.
        at: when it is asked.
    """

    ask: str
    kind: str
    right: tuple[str, ...]
    chain: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Story:
    """A story.

    Attributes:
        name: unique; its hash decides the half it belongs to.
        language: ``en`` or ``ru``.
        scenes: in the order of telling.
        questions: about it.
    """

    name: str
    language: str
    scenes: tuple[Told, ...]
    questions: tuple[Question, ...]

    @property
    def half(self) -> str:
        """The half it belongs to: weights are tuned on one, the other is reported."""
        return half_of(self.name)


def half_of(name: str) -> str:
    """The half of a story, by the SHA-256 of its name; nothing else about it counts, so that it never changes."""
    return HALVES[hashlib.sha256(name.encode("utf-8")).digest()[0] & 1]


def find_stories() -> Path:
    """The folder of the stories in a checkout.

    Raises:
        InputError: this is an installed package, which has none.
    """
    folder = Path(__file__).parents[2] / "tests" / "bench" / "data" / "stories"
    if not folder.is_dir():
        raise InputError(f"{folder}: no stories here; they come with the source, name their folder")
    return folder


def load_stories(folder: Path) -> list[Story]:
    """All stories of a folder, by file name.

    Raises:
        InputError: there is none, or one is malformed; says which and what.
    """
    import yaml

    stories = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            stories.append(_story(yaml.safe_load(path.read_text(encoding="utf-8"))))
        except (SchemaError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a story: {type(error).__name__}: {error}") from None
    if not stories:
        raise InputError(f"{folder}: no stories (*.yaml) in it")
    return stories


def _story(data: Mapping[str, Any]) -> Story:
    scenes = tuple(_scenes(data["sessions"]))
    known = [one.id for one in scenes]
    if len(set(known)) < len(known):
        raise ValueError("two scenes have the same id")
    questions = tuple(_question(one, data["at"], known) for one in data["questions"])
    return Story(str(data["story"]), data.get("language", "en"), scenes, questions)


def _scenes(sessions: Sequence[Mapping[str, Any]]) -> Iterator[Told]:
    for number, session in enumerate(sessions):
        for place, one in enumerate(session["scenes"]):
            record = Scene.from_dict(
                {
                    "actors": one["actors"],
                    "tension": one["tension"],
                    "archetype": one["archetype"],
                    "resonance_center": one["center"],
                    "response": one["response"],
                },
                one["id"],
            )
            yield Told(one["id"], _moment(session["at"]) + place * _BETWEEN, number, one["text"], record, one["phase"])


def _question(data: Mapping[str, Any], at: object, known: Sequence[str]) -> Question:
    right = data["right"] if isinstance(data["right"], list) else [data["right"]]
    chain = data.get("chain", [])
    for name in (*right, *chain):
        if name not in known:
            raise ValueError(f"{data['ask']!r}: no scene {name!r}")
    if data["kind"] not in KINDS:
        raise ValueError(f"{data['ask']!r}: kind {data['kind']!r}; known are {', '.join(KINDS)}")
    return Question(data["ask"], data["kind"], tuple(right), tuple(chain), _moment(data.get("at", at)))


def _moment(value: object) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
