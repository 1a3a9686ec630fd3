"""Course: a bundle folder's curriculum with its data, divided into what is trained on and what is not."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ltm_edge.errors import BundleError, Problem, SchemaError, TrainingError
from ltm_edge.schemas.chats import parse_chats
from ltm_edge.schemas.curriculum import Curriculum, parse_curriculum
from ltm_edge.schemas.field import FieldArchitecture
from ltm_edge.schemas.overlay import Overlay
from ltm_edge.schemas.prompts import Prompts
from ltm_edge.schemas.stories import Story, parse_stories
from ltm_edge.schemas.template import Template
from ltm_edge.training.loader import FieldDataLoader
from ltm_edge.training.packing import Row, pack
from ltm_edge.training.prompts import Prompter, Vocabulary
from ltm_edge.training.scheduler import CurriculumScheduler
from ltm_edge.training.stories import part_of
from ltm_edge.training.tasks import Example, TaskMaker

__all__ = ["CURRICULA", "Course", "Words"]

CURRICULA = ("curriculum.yaml", "ltm_curriculum.yaml")

ROW_TOKENS = 448
_MEASURED = ("restore", "create", "hold", "judge")


class OverlaySet(Protocol):
    """An overlay's documents, see `ltm_edge.overlay_set`."""

    overlay: Overlay
    field: FieldArchitecture
    prompts: Prompts

    @property
    def templates(self) -> Mapping[str, Template]:
        """Scene templates by name."""

    def archetype_names(self) -> dict[str, dict[str, str]]:
        """Names of the archetypes by language, then by id."""


@dataclass(frozen=True, slots=True)
class Words:
    """What of an overlay training goes by.

    Attributes:
        prompts: the words around a request.
        templates: by name.
        archetypes: their names by language, then by id.
        directives: of each channel by language.
        few_shot: examples at the head of a session.
    """

    prompts: Prompts
    templates: Mapping[str, Template]
    archetypes: Mapping[str, Mapping[str, str]]
    directives: Mapping[str, Mapping[str, str]]
    few_shot: int

    @classmethod
    def of(cls, overlay: OverlaySet) -> Words:
        """The words of an overlay."""
        return cls(
            overlay.prompts,
            overlay.templates,
            overlay.archetype_names(),
            {name: zone.directive for name, zone in overlay.field.channels.items()},
            overlay.overlay.few_shot,
        )


@dataclass(frozen=True, slots=True)
class Course:
    """A curriculum and its data.

    Attributes:
        curriculum: the order of things.
        stories: all of them, by part (``train``, ``validation``, ``held-out``).
        chats: ordinary exchanges by part, then by name.
        digest: SHA-256 of curriculum, data and words, hexadecimal.
    """

    curriculum: Curriculum
    stories: Mapping[str, tuple[Story, ...]]
    chats: Mapping[str, Mapping[str, Sequence[tuple[str, str]]]]
    digest: str
    words: Words

    @classmethod
    def read(cls, folder: Path, words: Words) -> Course:
        """The course of a bundle folder.

        Raises:
            TrainingError: it has no curriculum, or the curriculum names no file that is there.
            SchemaError: a file has problems.
            BundleError: a file can't be read.
        """
        path = next((folder / name for name in CURRICULA if (folder / name).is_file()), None)
        if path is None:
            raise TrainingError(f"{folder}: no {CURRICULA[0]} in it; `ltm-edge new` writes one to start from")
        digest = hashlib.sha256()
        try:
            raw = path.read_bytes()
            digest.update(raw)
            curriculum = parse_curriculum(raw, path.name)
            stories: dict[str, Story] = {}
            for file in _files(folder, path.name, "data", curriculum.data):
                raw = file.read_bytes()
                digest.update(raw)
                found = parse_stories(raw, _short(folder, file), words.templates, words.archetypes)
                for name, story in ((story.name, story) for story in found):
                    stories[_new(name, stories, folder, file, "story")] = story
            chats: dict[str, Sequence[tuple[str, str]]] = {}
            for file in _files(folder, path.name, "chat", curriculum.chat):
                raw = file.read_bytes()
                digest.update(raw)
                for name, turns in parse_chats(raw, _short(folder, file)).items():
                    chats[_new(name, chats, folder, file, "chat")] = turns
        except OSError as error:
            raise BundleError(f"{error.filename}: can't be read: {error.strerror or error}") from error
        digest.update(repr((words.prompts, sorted(words.templates.items()), words.few_shot)).encode())
        parts: dict[str, tuple[Story, ...]] = {}
        for part in ("train", "validation", "held-out"):
            parts[part] = tuple(story for story in stories.values() if part_of(story.name) == part)
        talks = {part: {n: t for n, t in chats.items() if part_of(n) == part} for part in parts}
        return cls(curriculum, parts, talks, digest.hexdigest(), words)

    def loader(
        self, vocabulary: Vocabulary, *, shuffled: bool = False, row_tokens: int = ROW_TOKENS
    ) -> FieldDataLoader:
        """Batches of what is trained on. Raises TrainingError where the data lacks what the curriculum asks for."""
        stories, chats = self.stories["train"], self.chats["train"]
        scheduler = CurriculumScheduler(self.curriculum, stories, list(chats), shuffled=shuffled)
        return FieldDataLoader(scheduler, self._maker(vocabulary, "train"), chats, row_tokens)

    def examples(
        self, vocabulary: Vocabulary, part: str, tasks: Iterable[str] = _MEASURED, *, limit: int | None = None
    ) -> list[Example]:
        """Examples of a part for measuring: bare prompts, every scene once for each task.

        Args:
            vocabulary: of the base model.
            part: ``train``, ``validation`` or ``held-out``.
            tasks: which ones; ``chat`` gives the part's ordinary exchanges.
            limit: only so many scenes, evenly over the part.
        """
        maker = self._maker(vocabulary, part)
        places = [(story.name, index) for story in self.stories[part] for index in range(len(story.scenes))]
        if limit is not None and limit < len(places):
            places = [places[number * len(places) // limit] for number in range(limit)]
        found: list[Example] = []
        for task in tasks:
            if task == "chat":
                found += [maker.chat(name, turns) for name, turns in self.chats[part].items()]
                continue
            made = (maker.make(task, story, index, f"{self.curriculum.seed}/{part}") for story, index in places)
            found += [example for example in made if example is not None]
        return found

    def opening(self, vocabulary: Vocabulary, part: str, story: str, index: int) -> Example:
        """One scene to be created, as :meth:`examples` gives it."""
        example = self._maker(vocabulary, part).make("create", story, index, f"{self.curriculum.seed}/{part}")
        assert example is not None, "a scene can always be created"
        return example

    def rows(
        self, vocabulary: Vocabulary, part: str, tasks: Iterable[str] = _MEASURED, *, limit: int | None = None
    ) -> list[Row]:
        """The same, packed."""
        return pack(self.examples(vocabulary, part, tasks, limit=limit), ROW_TOKENS)

    def gate_batches(self, vocabulary: Vocabulary, phase: str, *, size: int = 6) -> list[list[Row]]:
        """Create and hold of a phase's validation scenes, in batches of ``size`` examples.

        Those that a LoRA was trained on tell more of what it learned by heart than of the phase.

        Raises:
            TrainingError: the validation stories have no scene of the phase.
        """
        made = self.examples(vocabulary, "validation", ("create", "hold"))
        mine = [example for example in made if example.phase == phase]
        if not mine:
            raise TrainingError(f"head gates: the validation stories have no scene of the phase {phase}")
        random.Random(f"{self.curriculum.seed}/gates/{phase}").shuffle(mine)
        return [pack(mine[at : at + size], ROW_TOKENS) for at in range(0, len(mine), size)]

    def prompter(self, vocabulary: Vocabulary, emphasis: Mapping[str, float] | None = None) -> Prompter:
        """What writes the prompts; ``emphasis``: what the loss of a field's tokens counts."""
        words = self.words
        return Prompter(vocabulary, words.prompts, words.templates, words.few_shot, emphasis)

    def _maker(self, vocabulary: Vocabulary, part: str) -> TaskMaker:
        training = part == "train"
        return TaskMaker(
            self.prompter(vocabulary, self.curriculum.emphasis if training else None),
            self.words.directives,
            self.stories[part],
            variety=training,
            held_out=not training,
        )


def _files(folder: Path, where: str, key: str, patterns: Sequence[str]) -> list[Path]:
    """Files of the folder that patterns name, each once; raises where a pattern names none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        matched = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        if not matched:
            raise TrainingError(f"{folder / where}: curriculum.{key}: {pattern!r} names no file of the folder")
        found.update(dict.fromkeys(matched))
    return list(found)


def _short(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _new(name: str, known: Mapping[str, object], folder: Path, file: Path, what: str) -> str:
    if name in known:
        message = f"a {what} called {name} is in another file too; rename one"
        raise SchemaError(Problem(_short(folder, file), what, message))
    return name
