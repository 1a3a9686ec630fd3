"""What the scene memory needs of others: something that embeds texts, and, if there is one, something that sums up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ltm_edge.memory.records import StoredScene
    from ltm_edge.scene.record import Scene

__all__ = ["CountTokens", "Embedder", "Floats", "Notice", "Progress", "Summarise"]

Floats = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors of one space. The real one stands in ltm_edge.engine."""

    @property
    def dim(self) -> int:
        """Length of its vectors."""

    @property
    def id(self) -> str:
        """Name of the vector space: the same for the same weights and pooling, in every process."""

    def embed(self, texts: list[str], /) -> Floats:
        """Vectors of the texts, float32 [n, dim], of length 1."""

    def covers(self, text: str, /) -> bool:
        """Whether its vocabulary can represent the text."""


Summarise = Callable[[Sequence["StoredScene"]], "Scene"]
"""Writes the summary scene of an arc's or a saga's members, oldest first."""

CountTokens = Callable[[str], int]
"""Number of tokens of a text."""

Progress = Callable[[int, int], None]
"""Called with what is done and what is to be done in all."""

Notice = Callable[[str], None]
"""Takes a sentence for the user."""
