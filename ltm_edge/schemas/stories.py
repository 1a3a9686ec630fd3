"""Training stories (`data/stories/*.yaml` of a bundle): requests and the scenes that answer them, as they were told.

A story of several scenes is a chain: the same person goes on, and a later scene builds on what happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from ltm_edge.errors import Problem, SchemaError
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene
from ltm_edge.scene.yaml_io import path_parts
from ltm_edge.schemas.check import STRICT, Language, Name, Text, check_record
from ltm_edge.schemas.template import Template, check_scene
from ltm_edge.schemas.yaml import load_yaml

__all__ = ["Story", "TrainingScene", "parse_stories"]


@dataclass(frozen=True, slots=True)
class TrainingScene:
    """A request, the scene that answers it, and what it was written under."""

    pvq: Pvq
    template: str
    scene: Scene


@dataclass(frozen=True, slots=True)
class Story:
    """Scenes that follow each other.

    Attributes:
        name: unique in the data; its hash decides whether it is trained on.
        language: of requests and answers.
        matter: what it is about, such as ``family``.
        scenes: in the order of telling, one or more.
    """

    name: str
    language: str
    matter: str
    scenes: tuple[TrainingScene, ...]


@dataclass(frozen=True, slots=True)
class _Scene:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    text: Text
    template: Name
    phase: Literal["myth", "drama", "logic", "irony"]
    scene: Mapping[str, Any]
    goal: Text | None = None


@dataclass(frozen=True, slots=True)
class _Story:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    story: Name
    matter: Text
    scenes: Annotated[tuple[_Scene, ...], Field(min_length=1, max_length=100)]


@dataclass(frozen=True, slots=True)
class _File:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    stories: Annotated[tuple[_Story, ...], Field(min_length=1, max_length=10_000)]
    lang: Language = "en"


def parse_stories(
    text: str | bytes,
    where: str,
    templates: Mapping[str, Template],
    names: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Story, ...]:
    """The stories in a YAML file.

    Args:
        text: the file.
        where: its name, for messages.
        templates: scene templates by name; every scene has to fit its own.
        names: by language the archetypes' names by id, as the templates offer them.

    Raises:
        SchemaError: with all problems and their lines.
    """
    document = load_yaml(text, where)
    file: _File = check_record(_File, document, data=document.data)
    problems: list[Problem] = []
    stories = []
    for i, one in enumerate(file.stories):
        scenes = []
        for k, told in enumerate(one.scenes):
            base: tuple[str | int, ...] = ("stories", i, "scenes", k)
            template = templates.get(told.template)
            if template is None:
                problems.append(document.problem((*base, "template"), f"no template is called {told.template!r}"))
                continue
            if told.phase not in template.phases:
                fit = ", ".join(template.phases)
                problems.append(document.problem((*base, "phase"), f"{told.template} is for {fit}"))
            try:
                scene = Scene.from_dict(document.data["stories"][i]["scenes"][k]["scene"])
            except SchemaError as error:
                problems += [
                    document.problem((*base, "scene", *path_parts(found.path)), found.message)
                    for found in error.problems
                ]
                continue
            problems += [
                document.problem((*base, "scene", *path_parts(path)), message)
                for path, message in check_scene(template, scene, (names or {}).get(file.lang))
            ]
            pvq = Pvq(told.text, goal=told.goal, phase=told.phase)
            scenes.append(TrainingScene(pvq, told.template, scene))
        stories.append(Story(one.story, file.lang, one.matter, tuple(scenes)))
    if problems:
        raise SchemaError(problems)
    return tuple(stories)
