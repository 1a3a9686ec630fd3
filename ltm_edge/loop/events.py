"""What is heard of a turn while it runs, beside the text of the draft."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["OnEvent", "Replaced", "Stage", "TurnEvent"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the turn begins.

    Attributes:
        name: ``recall``, ``draft``, ``council``, ``critics``, ``revise`` or ``store``.
        about: a few words for people; may be empty.
    """

    name: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Replaced:
    """Another document than the one that streamed is the answer.

    Attributes:
        document: the whole new document (YAML).
        about: why, in a few words.
    """

    document: str
    about: str = ""


TurnEvent = Stage | Replaced
OnEvent = Callable[[TurnEvent], None]
