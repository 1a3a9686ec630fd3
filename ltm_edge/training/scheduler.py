"""CurriculumScheduler (куррикулум): in which order scenes are fed, as which task, at which learning rate."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ltm_edge.errors import TrainingError
from ltm_edge.schemas.curriculum import Curriculum, CurriculumPhase
from ltm_edge.schemas.stories import Story

__all__ = ["CurriculumScheduler", "Place", "Unit"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scene stands: its story and its number in it."""

    story: str
    index: int


@dataclass(frozen=True, slots=True)
class Unit:
    """One example to feed.

    Attributes:
        task: what is made of it.
        place: the scene; of an ordinary chat its name, and 0.
        section: number of the curriculum's phase that it is fed in.
        phase: phase of the scene; empty for an ordinary chat.
        archetype: the scene's first.
        seed: what the example draws from.
    """

    task: str
    place: Place
    section: int
    phase: str
    archetype: str
    seed: str


class CurriculumScheduler:
    """The whole plan of a run, known before it begins and the same for the same curriculum, data and seed.

    Phases follow each other. In each, every scene of the phase is fed once an epoch, archetypes spread evenly; the task
    is drawn by the phase's shares. The last examples of a phase come mixed with the first of the next (overlap), and
    scenes of earlier phases (replay) and ordinary exchanges (chat) are strewn in.

    Args:
        curriculum: phases and their numbers.
        stories: what there is to learn from.
        chats: names of ordinary exchanges.
        shuffled: the same units in random order, to see what the order brings.

    Raises:
        TrainingError: a phase without scenes, an archetype that no scene has, or chats wanted where there are none.
    """

    def __init__(
        self, curriculum: Curriculum, stories: Sequence[Story], chats: Sequence[str] = (), *, shuffled: bool = False
    ) -> None:
        self.curriculum = curriculum
        self._chats = tuple(chats)
        self._scenes: dict[str, list[tuple[Place, str]]] = {}
        self._first: dict[str, bool] = {}
        known: set[str] = set()
        for story in stories:
            for index, scene in enumerate(story.scenes):
                known.update(scene.scene.archetype)
                listed = self._scenes.setdefault(scene.pvq.phase or "", [])
                listed.append((Place(story.name, index), scene.scene.archetype[0]))
        self._tell = {
            (story.name, index): set(scene.scene.archetype)
            for story in stories
            for index, scene in enumerate(story.scenes)
        }
        self._check(known)
        sections = [self._section(number) for number in range(len(curriculum.phases))]
        self.units = self._joined(sections)
        if shuffled:
            self._rng("shuffled").shuffle(self.units)

    @property
    def batches(self) -> int:
        """Steps of the optimiser."""
        return -(-len(self.units) // self.curriculum.batch)

    def learning_rate(self, step: int, steps: int, section: int) -> float:
        """Of one step out of ``steps``: the phase's own, risen over the first steps, falling over the last."""
        warm, fall = self.curriculum.warmup * steps, self.curriculum.decay * steps
        factor = min(1.0, (step + 1) / warm) if warm >= 1 else 1.0
        left = steps - step
        if fall >= 1 and left < fall:
            factor *= 0.1 + 0.9 * left / fall
        return self.curriculum.phases[section].learning_rate * factor

    def _rng(self, *what: object) -> random.Random:
        return random.Random("/".join(map(str, (self.curriculum.seed, *what))))

    def _check(self, known: set[str]) -> None:
        name = self.curriculum.name
        for number, phase in enumerate(self.curriculum.phases):
            where = f"curriculum {name}: phases[{number}] ({phase.phase})"
            unknown = [archetype for archetype in phase.archetypes if archetype not in known]
            if unknown:
                raise TrainingError(
                    f"{where}: no scene has the archetype {unknown[0]!r}; there are: {', '.join(sorted(known))}"
                )
            if not self._of(phase):
                raise TrainingError(f"{where}: the data has no scene of it; add some, or take the phase out")
            if phase.chat and not self._chats:
                raise TrainingError(f"{where}: wants ordinary exchanges, but `chat` names no file that has any")

    def _of(self, phase: CurriculumPhase) -> list[tuple[Place, str]]:
        wanted = set(phase.archetypes)
        return [
            (place, archetype)
            for place, archetype in self._scenes.get(phase.phase, ())
            if not wanted or wanted & self._tell[place.story, place.index]
        ]

    def _section(self, number: int) -> list[Unit]:
        """The units of one phase, in order."""
        phase = self.curriculum.phases[number]
        own = self._of(phase)
        count = round(phase.epochs * len(own))
        units: list[Unit] = []
        epoch = 0
        while len(units) < count:
            order = _spread(own, self._rng(number, epoch))
            units += [
                self._unit(place, archetype, phase, number, epoch) for place, archetype in order[: count - len(units)]
            ]
            epoch += 1
        strewn = self._replayed(number, round(phase.replay * count))
        strewn += self._chatted(number, round(phase.chat * count))
        rng = self._rng(number, "strewn")
        rng.shuffle(strewn)
        return _mixed(units, strewn)

    def _replayed(self, number: int, count: int) -> list[Unit]:
        """Scenes of earlier phases, each once before any comes again."""
        phase = self.curriculum.phases[number]
        earlier = {one.phase: self._of(one) for one in self.curriculum.phases[:number] if one.phase != phase.phase}
        pool = [(place, archetype, name) for name, listed in earlier.items() for place, archetype in listed]
        if not pool:
            return []
        rng = self._rng(number, "replay")
        drawn: list[tuple[Place, str, str]] = []
        while len(drawn) < count:
            order = list(pool)
            rng.shuffle(order)
            drawn += order[: count - len(drawn)]
        return [
            self._unit(place, archetype, phase, number, 1000 + turn, name)
            for turn, (place, archetype, name) in enumerate(drawn)
        ]

    def _chatted(self, number: int, count: int) -> list[Unit]:
        names: list[str] = []
        rng = self._rng(number, "chat")
        while len(names) < count:
            order = list(self._chats)
            rng.shuffle(order)
            names += order[: count - len(names)]
        return [Unit("chat", Place(name, 0), number, "", "", "") for name in names]

    def _unit(
        self, place: Place, archetype: str, phase: CurriculumPhase, section: int, epoch: int, told: str | None = None
    ) -> Unit:
        seed = f"{self.curriculum.seed}/{section}/{epoch}"
        drawn = int.from_bytes(hashlib.sha256(f"{seed}/{place.story}/{place.index}".encode()).digest()[:8], "big")
        tasks = phase.tasks
        share = drawn / 2**64
        if share < phase.judgements:
            task = "judge"
        else:
            share = (share - phase.judgements) / (1 - phase.judgements)
            task = "restore" if share < tasks.restore else "create" if share < tasks.restore + tasks.create else "hold"
        if task == "hold" and place.index == 0:
            task = "create"  # nothing stands before a chain's first scene
        return Unit(task, place, section, told or phase.phase, archetype, seed)

    def _joined(self, sections: list[list[Unit]]) -> list[Unit]:
        """The sections behind each other, the end of each mixed with as many of the next."""
        units: list[Unit] = []
        carried: list[Unit] = []
        for number, section in enumerate(sections):
            mixed = _mixed(section[: len(carried)], carried) if carried else []
            rest = section[len(carried) :] if carried else section
            units += mixed
            last = number == len(sections) - 1
            room = len(rest) if last else min(len(rest), len(sections[number + 1]))
            overlap = 0 if last else min(room, round(self.curriculum.phases[number].overlap * len(section)))
            units += rest[: len(rest) - overlap]
            carried = rest[len(rest) - overlap :] if overlap else []
        return units


def _spread(scenes: Iterable[tuple[Place, str]], rng: random.Random) -> list[tuple[Place, str]]:
    """Scenes in random order, those of each archetype at even distances."""
    groups: dict[str, list[Place]] = {}
    for place, archetype in scenes:
        groups.setdefault(archetype, []).append(place)
    placed = []
    for archetype in sorted(groups):
        places = groups[archetype]
        rng.shuffle(places)
        shift = rng.random()
        placed += [((turn + shift) / len(places), archetype, place) for turn, place in enumerate(places)]
    return [(place, archetype) for _, archetype, place in sorted(placed, key=lambda item: item[:2])]


def _mixed(one: Sequence[Unit], other: Sequence[Unit]) -> list[Unit]:
    """Both lists in one, each in its own order, at even distances."""
    places = [((turn + 0.5) / len(one), 0, unit) for turn, unit in enumerate(one)]
    places += [((turn + 0.5) / len(other), 1, unit) for turn, unit in enumerate(other)]
    return [unit for _, _, unit in sorted(places, key=lambda item: item[:2])]
