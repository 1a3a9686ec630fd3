"""The curriculum (`curriculum.yaml`, `ltm_curriculum.yaml`): the order in which training data is fed.

Phases follow each other as listed (the source's order is myth, drama, logic, irony) and may come again; each has its
archetypes, the shares of the three tasks (restore the field, create the scene, hold the chain) and of critic
judgements, its epochs and its learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, Strict

from ltm_edge.schemas.check import STRICT, Fraction, Name, RelativeFile, Whole, check_record, take_root
from ltm_edge.schemas.yaml import load_yaml

__all__ = ["Curriculum", "CurriculumPhase", "LoraShape", "TaskShares", "parse_curriculum"]


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
    """One phase of training.

    Attributes:
        phase: whose scenes are fed.
        archetypes: only scenes with one of these; empty: all.
        tasks: shares of the three tasks among the examples that are no judgements.
        judgements: share of critic judgements.
        epochs: how often each scene is fed.
        learning_rate: while this phase runs.
        overlap: share of this phase's examples that come mixed with the next phase's first ones.
        replay: examples of earlier phases for each one of this phase.
        chat: ordinary exchanges for each example of this phase.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    phase: Literal["myth", "drama", "logic", "irony"]
    archetypes: tuple[Name, ...] = ()
    tasks: TaskShares = field(default_factory=TaskShares)
    judgements: Fraction = 0.1
    epochs: Annotated[float, Strict(), Field(gt=0.0, le=1000.0)] = 1.0
    learning_rate: Annotated[float, Strict(), Field(gt=0.0, le=1.0)] = 1e-4
    overlap: Fraction = 0.0
    replay: Fraction = 0.0
    chat: Fraction = 0.0


@dataclass(frozen=True, slots=True)
class LoraShape:
    """Rank and alpha of the LoRA that is trained; its changes are scaled by alpha / rank.

    ``dropout``: share of its inputs that are left out at random in training, against learning the data by heart.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    rank: Annotated[Whole, Field(ge=1, le=512)] = 16
    alpha: Annotated[Whole, Field(ge=1, le=4096)] = 32
    dropout: Annotated[float, Strict(), Field(ge=0.0, lt=1.0)] = 0.0


@dataclass(frozen=True, slots=True)
class Curriculum:
    """A curriculum: phases in order, and the data files (or patterns) they draw from.

    Attributes:
        version: of this format.
        phases: in order.
        data: files of stories.
        chat: files of ordinary exchanges, so that the model does not forget how to have one.
        name: of the curriculum.
        seed: of everything that is drawn.
        batch: examples between two steps of the optimiser.
        warmup: share of all steps in which the learning rate rises.
        decay: share of all steps, the last ones, in which it falls to a tenth.
        lora: shape of the LoRA.
        emphasis: what the loss of a scene field's tokens counts, by field; 1 where it isn't named. Of the hundred
            tokens of a scene few are in a short field.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    version: Whole
    phases: Annotated[tuple[CurriculumPhase, ...], Field(min_length=1, max_length=64)]
    data: Annotated[tuple[RelativeFile, ...], Field(min_length=1, max_length=1024)]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "curriculum"
    seed: Annotated[Whole, Field(ge=0, le=0xFFFF_FFFE)] = 0
    chat: Annotated[tuple[RelativeFile, ...], Field(max_length=1024)] = ()
    batch: Annotated[Whole, Field(ge=1, le=4096)] = 8
    warmup: Fraction = 0.03
    decay: Fraction = 0.3
    lora: LoraShape = field(default_factory=LoraShape)
    emphasis: Annotated[Mapping[Name, Annotated[float, Strict(), Field(ge=0.0, le=100.0)]], Field(max_length=64)] = (
        field(default_factory=dict)
    )


def parse_curriculum(text: str | bytes, where: str = "<string>") -> Curriculum:
    """The curriculum in a YAML file.

    Raises:
        SchemaError: with all problems and their lines.
    """
    document = load_yaml(text, where)
    take_root(document, "curriculum")
    curriculum: Curriculum = check_record(Curriculum, document, ("curriculum",))
    return curriculum
