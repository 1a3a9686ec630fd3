"""The curriculum (`curriculum.yaml`, `ltm_curriculum.yaml`): the order in which training data is fed.

Phases follow each other as listed (the source's order is myth, drama, logic, irony); each has its archetypes, the
shares of the three tasks (restore the field, create the scene, hold the chain) and of critic judgements, its epochs
and its learning rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, Strict

from ltm_edge.schemas.check import STRICT, Fraction, Name, RelativeFile, Whole, check_record, take_root
from ltm_edge.schemas.yaml import load_yaml

__all__ = ["Curriculum", "CurriculumPhase", "TaskShares", "parse_curriculum"]


@dataclass(frozen=True, slots=True)
class TaskShares:
    """Shares of the three training tasks; they sum to 1."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    restore: Fraction = 0.3
    create: Fraction = 0.5
    hold: Fraction = 0.2

    def __post_init__(self) -> None:
        total = math.fsum((self.restore, self.create, self.hold))
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the shares sum to {total:g}; they must sum to 1")


@dataclass(frozen=True, slots=True)
class CurriculumPhase:
    """One phase of training."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    phase: Literal["myth", "drama", "logic", "irony"]
    archetypes: tuple[Name, ...] = ()
    tasks: TaskShares = field(default_factory=TaskShares)
    judgements: Fraction = 0.1
    epochs: Annotated[float, Strict(), Field(gt=0.0, le=1000.0)] = 1.0
    learning_rate: Annotated[float, Strict(), Field(gt=0.0, le=1.0)] = 1e-4


@dataclass(frozen=True, slots=True)
class Curriculum:
    """A curriculum: phases in order, and the data files (or patterns) they draw from."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    version: Whole
    phases: Annotated[tuple[CurriculumPhase, ...], Field(min_length=1, max_length=64)]
    data: Annotated[tuple[RelativeFile, ...], Field(min_length=1, max_length=1024)]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "curriculum"
    seed: Annotated[Whole, Field(ge=0, le=0xFFFF_FFFE)] = 0


def parse_curriculum(text: str | bytes, where: str = "<string>") -> Curriculum:
    """The curriculum in a YAML file.

    Raises:
        SchemaError: with all problems and their lines.
    """
    document = load_yaml(text, where)
    take_root(document, "curriculum")
    curriculum: Curriculum = check_record(Curriculum, document, ("curriculum",))
    return curriculum
