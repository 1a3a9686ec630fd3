"""Training tasks: restore the field, create the scene, hold the chain, judge a scene, and have an ordinary chat."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm_edge.scene.pvq import Pvq
from ltm_edge.schemas.stories import Story, TrainingScene
from ltm_edge.training.damage import DAMAGES, damage
from ltm_edge.training.prompts import Prompter, Tokens, Words

__all__ = ["CHANNEL_OF_PHASE", "TASKS", "Example", "Line", "TaskMaker"]

TASKS = ("restore", "create", "hold", "judge", "chat")

CHANNEL_OF_PHASE = {"logic": "logician", "myth": "archetype", "drama": "poet", "irony": "ironist"}
"""The channel that each phase's scenes are typical of."""

_KNOWN = ("actors", "tension", "archetype", "resonance_center")  # what a prompt can say of a scene
_WINDOW = 3  # turns of a chain that one example shows
_JUDGE_WEIGHT = 8.0  # of one answer of one token, beside the hundred tokens of a scene


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One text of an example, from its beginning.

    Attributes:
        tokens: int32 [n].
        weights: float32 [n]: what the loss of predicting each token counts; 0 where it is only read.
        asked: of a judgement, the tokens of the good and the bad answer; None for other texts.
    """

    tokens: Tokens
    weights: npt.NDArray[np.float32]
    asked: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """What one task makes of one scene.

    Attributes:
        name: story, number of the scene, and task.
        task: one of `TASKS`.
        phase: of the scene; empty for an ordinary chat.
        archetype: the scene's first.
        story: name of the story.
        lines: its texts, which may begin alike.
    """

    name: str
    task: str
    phase: str
    archetype: str
    story: str
    lines: tuple[Line, ...] = field(repr=False)

    @property
    def tokens(self) -> int:
        """Tokens of all its texts, what they share counted again."""
        return sum(len(line.tokens) for line in self.lines)


class TaskMaker:
    """Makes examples of scenes; the same seed makes the same example.

    Args:
        prompter: writes prompts and answers as tokens.
        directives: of each channel by language.
        stories: where chains and other scenes are taken from.
        variety: prompts also carry what a session may put there: directives, goals, notes of earlier talks.
        held_out: damages use phrases that are not trained on.
    """

    def __init__(
        self,
        prompter: Prompter,
        directives: Mapping[str, Mapping[str, str]],
        stories: Sequence[Story],
        *,
        variety: bool = True,
        held_out: bool = False,
    ) -> None:
        self._prompter = prompter
        self._directives = directives
        self._stories = {story.name: story for story in stories}
        self._variety = variety
        self._held_out = held_out

    def make(self, task: str, story: str, index: int, seed: str) -> Example | None:
        """The example of one task and one scene.

        Args:
            task: restore, create, hold or judge.
            story: name of the story.
            index: number of the scene in it.
            seed: of everything that is drawn.

        Returns:
            None where the scene doesn't lend itself to it: the first of a chain to hold, or no damage can be done.
        """
        told = self._stories[story]
        scene = told.scenes[index]
        rng = random.Random(f"{seed}/{story}/{index}/{task}")
        lines: Sequence[Line] | None
        if task == "restore":
            lines = (self._whole(scene, self._masked(scene, rng), told.language, rng, plain=True),)
        elif task == "create":
            lines = (self._whole(scene, self._request(scene, rng), told.language, rng, story=told, index=index),)
        elif task == "hold":
            lines = self._hold(told, index, rng)
        elif task == "judge":
            lines = self._judge(told, scene, rng)
        else:
            raise ValueError(f"no task {task!r}")
        if lines is None:
            return None
        first = scene.scene.archetype[0]
        return Example(f"{story}[{index}] {task}", task, scene.pvq.phase or "", first, story, tuple(lines))

    def chat(self, name: str, exchange: Sequence[tuple[str, str]]) -> Example:
        """The example of an ordinary exchange."""
        return Example(f"{name} chat", "chat", "", "", name, (Line(*self._prompter.chat(exchange)),))

    def _whole(
        self,
        scene: TrainingScene,
        pvq: Pvq,
        lang: str,
        rng: random.Random,
        *,
        plain: bool = False,
        story: Story | None = None,
        index: int = 0,
    ) -> Line:
        """A prompt and the scene that answers it."""
        manner = "" if plain else self._manner(scene, lang, rng)
        recalled = ""
        if story is not None and index and self._variety and rng.random() < 0.4:
            earlier = story.scenes[max(0, index - 2) : index]
            days = sorted(f"2026-{rng.randint(1, 9):02d}-{rng.randint(1, 28):02d}" for _ in earlier)
            notes = [f"{day}: {one.pvq.text}" for day, one in zip(days, earlier, strict=True)]
            recalled = self._prompter.composer(scene.template, lang).recalled(notes, lang)
        prompt = self._prompter.opening(scene, pvq, lang, recalled, manner)
        return _line(prompt, self._prompter.answer(self._prompter.document(scene)))

    def _request(self, scene: TrainingScene, rng: random.Random) -> Pvq:
        """The request, mostly bare, as people type it."""
        pvq = replace(scene.pvq, phase=None, goal=None)
        if self._variety and rng.random() < 0.3:
            pvq = replace(pvq, goal=scene.pvq.goal, phase=scene.pvq.phase if rng.random() < 0.4 else None)
            if rng.random() < 0.3:
                pvq = replace(pvq, archetype=scene.scene.archetype)
        return pvq

    def _masked(self, scene: TrainingScene, rng: random.Random) -> Pvq:
        """The request with what is known of its scene, one to three fields masked; the response always is."""
        masked = rng.sample(_KNOWN, rng.randint(1, 3))
        known: dict[str, Any] = {}
        if "actors" not in masked:
            known["actors"] = [{role: who} for role, who in scene.scene.actors]
        for name in ("tension", "resonance_center"):
            if name not in masked:
                known[name] = getattr(scene.scene, name)
        archetype = () if "archetype" in masked else scene.scene.archetype
        return replace(scene.pvq, scene=known, archetype=archetype, phase=None, goal=None)

    def _hold(self, story: Story, index: int, rng: random.Random) -> Sequence[Line] | None:
        """Earlier scenes of the chain, and the next. All of them are scenes, so that all are learned."""
        if index == 0:
            return None
        start = rng.randint(max(0, index - _WINDOW + 1), index - 1) if self._variety else max(0, index - _WINDOW + 1)
        window = [replace(one, pvq=self._request(one, rng)) for one in story.scenes[start : index + 1]]
        manner = self._manner(story.scenes[index], story.language, rng)
        return (Line(*self._prompter.chain(window, story.language, manner)),)

    def _judge(self, story: Story, scene: TrainingScene, rng: random.Random) -> Sequence[Line] | None:
        """The scene, what critics ask about it, and the same of two damaged ones; as often yes as no."""
        prompter, lang = self._prompter, story.language
        others = [one for other in self._stories.values() if other.matter != story.matter for one in other.scenes]
        prompt = prompter.opening(scene, self._request(scene, rng), lang)
        document = prompter.document(scene)
        lines = [_line(prompt, prompter.answer(document))]
        read = np.concatenate([prompt, prompter.vocabulary.tokenize(document)])
        critics = rng.sample(sorted(set(DAMAGES.values())), 2)
        for critic in critics:
            kinds = [kind for kind, finder in DAMAGES.items() if finder == critic]
            rng.shuffle(kinds)
            template = prompter.templates[scene.template]
            tries = (damage(kind, scene, template, others, rng, held_out=self._held_out) for kind in kinds)
            bad = next((found for found in tries if found is not None), None)
            if bad is None:
                continue
            text = prompter.document(replace(scene, scene=bad))
            lines.append(self._asked(read, critic, lang, good=True))
            damaged = np.concatenate([prompt, prompter.vocabulary.tokenize(text)])
            lines.append(self._asked(damaged, critic, lang, good=False))
        return lines if len(lines) > 1 else None

    def _asked(self, read: Tokens, critic: str, lang: str, *, good: bool) -> Line:
        """A critic's question behind what was read, and its answer."""
        words, vocabulary = self._prompter.prompts.of(lang).probe, self._prompter.vocabulary
        ask = vocabulary.tokenize(words.ask + words.questions[critic])
        yes, no = (int(vocabulary.tokenize(word)[0]) for word in (words.yes, words.no))
        answer = np.array([yes if good else no], np.int32)
        tokens = np.concatenate([read, ask, answer]).astype(np.int32)
        weights = np.zeros(len(tokens), np.float32)
        weights[-1] = _JUDGE_WEIGHT
        return Line(tokens, weights, (yes, no))

    def _manner(self, scene: TrainingScene, lang: str, rng: random.Random) -> str:
        """The directive of the channel that the scene's phase is typical of, in about a third of all prompts."""
        channel = CHANNEL_OF_PHASE.get(scene.pvq.phase or "", "")
        spoken = self._directives.get(channel, {})
        directive = spoken.get(lang) or spoken.get("en")
        if not self._variety or not directive or rng.random() >= 0.3:
            return ""
        return self._prompter.composer(scene.template, lang).manner([(directive, 1.0)], lang)


def _line(prompt: Tokens, answer: Words) -> Line:
    tokens, weights = answer
    return Line(
        np.concatenate([prompt, tokens]).astype(np.int32), np.concatenate([np.zeros(len(prompt), np.float32), weights])
    )
