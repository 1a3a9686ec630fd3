"""FieldDataLoader: what a curriculum schedules, as batches of packed rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ltm_edge.training.packing import Row, pack
from ltm_edge.training.scheduler import CurriculumScheduler, Unit
from ltm_edge.training.tasks import Example, TaskMaker

__all__ = ["Batch", "FieldDataLoader"]

_WINDOW = 4  # batches within which examples of one template come together, so that they share their beginning


@dataclass(frozen=True, slots=True)
class Batch:
    """What stands between two steps of the optimiser.

    Attributes:
        number: from 0.
        section: number of the curriculum's phase, of most of its examples.
        rows: packed texts.
    """

    number: int
    section: int
    rows: tuple[Row, ...]

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return sum(map(len, self.rows))


class FieldDataLoader:
    """Batches by phase and archetype, as the scheduler orders them, of texts of about equal beginnings.

    Args:
        scheduler: the plan.
        maker: makes examples of scenes.
        chats: ordinary exchanges by name.
        row_tokens: tokens that are computed at once.
    """

    def __init__(
        self,
        scheduler: CurriculumScheduler,
        maker: TaskMaker,
        chats: Mapping[str, Sequence[tuple[str, str]]] | None = None,
        row_tokens: int = 448,
    ) -> None:
        self.scheduler = scheduler
        self._maker = maker
        self._chats = dict(chats or {})
        self._row_tokens = row_tokens
        self._window: tuple[int, list[list[tuple[Unit, Example]]]] = (-1, [])

    def __len__(self) -> int:
        return self.scheduler.batches

    def batch(self, number: int) -> Batch:
        """The batch of one step. Every step can be had alone, so that a run goes on where it stopped."""
        window, place = divmod(number, _WINDOW)
        if self._window[0] != window:
            self._window = (window, self._dealt(window))
        dealt = self._window[1][place]
        sections = [unit.section for unit, _ in dealt]
        rows = pack((example for _, example in dealt), self._row_tokens)
        return Batch(number, max(sorted(set(sections)), key=sections.count), tuple(rows))

    def example(self, unit: Unit) -> Example:
        """What a unit of the plan comes to; a scene that its task can do nothing with is created."""
        if unit.task == "chat":
            return self._maker.chat(unit.place.story, self._chats[unit.place.story])
        for task in (unit.task, "create"):
            example = self._maker.make(task, unit.place.story, unit.place.index, unit.seed)
            if example is not None:
                return example
        raise AssertionError("a scene can always be created")

    def _dealt(self, window: int) -> list[list[tuple[Unit, Example]]]:
        """The batches of a window: as many examples each as the plan has, neighbours by how their texts begin."""
        size = self.scheduler.curriculum.batch
        start = window * _WINDOW * size
        made = [(unit, self.example(unit)) for unit in self.scheduler.units[start : start + _WINDOW * size]]
        made.sort(key=lambda pair: (pair[1].lines[0].tokens.tolist(), pair[1].name))
        dealt = [made[at : at + size] for at in range(0, len(made), size)]
        # The short one stays the last; the others come in the order of their names, which is none of sense.
        whole = [batch for batch in dealt if len(batch) == size]
        return sorted(whole, key=lambda batch: batch[0][1].name) + [batch for batch in dealt if len(batch) < size]
