"""A bundle's training stories, and which of them a model is never trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from ltm_edge.errors import Problem, SchemaError
from ltm_edge.schemas.stories import Story, parse_stories
from ltm_edge.schemas.template import Template

__all__ = ["PARTS", "frozen_hash", "load_stories", "part_of"]

PARTS = ("train", "validation", "held-out")


def part_of(name: str) -> str:
    """The part that a story belongs to, eight tenths, one, and one, by the SHA-256 of its name.

    By story and not by scene, so that no chain stands in two parts; by name, so that a new story moves no other.
    """
    tenth = hashlib.sha256(name.encode()).digest()[0] * 10 // 256
    return PARTS[0] if tenth < 8 else PARTS[tenth - 7]


def frozen_hash(stories: Iterable[Story], part: str) -> str:
    """SHA-256, 64 hexadecimal digits, of the names of a part's stories: changes when one comes, goes or moves."""
    names = sorted(story.name for story in stories if part_of(story.name) == part)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def load_stories(
    folder: Path, templates: Mapping[str, Template], names: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[Story, ...]:
    """The stories in all YAML files of a folder, by file name.

    Raises:
        SchemaError: a file has problems (all of one file at once), or two stories have one name.
        OSError: a file can't be read.
    """
    stories: dict[str, Story] = {}
    for path in sorted(folder.glob("*.yaml")):
        for story in parse_stories(path.read_bytes(), path.name, templates, names):
            if story.name in stories:
                message = f"a story called {story.name} is in another file too; rename one"
                raise SchemaError(Problem(path.name, "stories", message))
            stories[story.name] = story
    return tuple(stories.values())
