"""What a turn needs of an engine and of a memory. The real ones stand in ltm_edge.engine and ltm_edge.memory; tests may
bring their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene
from ltm_edge.scene.vocabulary import Tokens, Vocabulary

__all__ = [
    "AnyOrder",
    "DraftPass",
    "Kept",
    "Memory",
    "MemoryPolicy",
    "Recalled",
    "RememberedScene",
    "ScoredPass",
    "Tokens",
    "Vocabulary",
    "Writer",
]


class DraftPass(Protocol):
    """What one decode did."""

    @property
    def text(self) -> str:
        """What was written."""

    @property
    def tokens(self) -> Tokens:
        """Its tokens, int32 [n]."""

    @property
    def stop(self) -> str:
        """``eog``, ``length``, ``cancelled`` or ``sink``."""

    @property
    def complete(self) -> bool:
        """True if the model ended the text itself."""

    def to_trace(self, kind: str) -> dict[str, Any]:
        """The pass as it stands in a turn's trace."""


class ScoredPass(Protocol):
    """Log-probabilities of given continuations."""

    @property
    def logprobs(self) -> Sequence[npt.NDArray[np.float32]]:
        """Natural logarithms for each continuation's tokens, float32 [m] each."""


class AnyOrder(Protocol):
    """One answer to write."""

    @property
    def prompt(self) -> Tokens:
        """Tokens before it."""

    @property
    def max_tokens(self) -> int:
        """Tokens that it may take."""

    @property
    def sampling(self) -> Any:
        """How tokens are chosen."""

    @property
    def gbnf(self) -> str:
        """Its grammar; empty for free text."""

    @property
    def references(self) -> Sequence[Tokens]:
        """Texts that it is likely to repeat."""


class Writer(Protocol):
    """One context that writes documents."""

    @property
    def n_ctx(self) -> int:
        """Tokens that the context holds."""

    def write_many(
        self,
        orders: Sequence[AnyOrder],
        *,
        adapters: Any = None,
        on_text: Callable[[int, str], None] | None = None,
    ) -> Sequence[DraftPass]:
        """Write several answers at once, under one mix of adapters; None: the base."""

    def score(self, requests: Sequence[tuple[Tokens, Sequence[Tokens]]]) -> Sequence[ScoredPass]:
        """Log-probabilities of continuations (int32 [m] each) behind prompts (int32 [n]); none if it was cancelled."""

    def rebase(self, tokens: Tokens, keep: int, count: int) -> int:
        """Take ``count`` tokens behind the first ``keep`` out of what is cached; returns how many moved."""

    def warm(self, tokens: Tokens, head: int) -> int:
        """Begin a conversation whose first ``head`` tokens others have too; returns tokens taken from a saved state."""

    def cancel(self) -> None:
        """Stop the running write."""


class RememberedScene(Protocol):
    """A scene in memory."""

    @property
    def id(self) -> int:
        """Its number."""

    @property
    def uid(self) -> str:
        """Its name across memories."""

    @property
    def scene(self) -> Scene:
        """The record."""

    @property
    def text(self) -> str:
        """What the person said."""

    @property
    def strength(self) -> float:
        """How often it has helped, 0 to 1."""

    @property
    def echo(self) -> bool:
        """Whether its response only repeats other scenes."""

    @property
    def created(self) -> int:
        """When it was told, microseconds since 1970."""

    @property
    def created_at(self) -> datetime:
        """When it was told."""


class Recalled(Protocol):
    """A scene that came back."""

    @property
    def scene(self) -> RememberedScene:
        """The scene."""

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a turn's trace: id, score, parts, how it got here."""


class Kept(Protocol):
    """What became of a scene that was given to a memory."""

    @property
    def id(self) -> int:
        """The scene that holds it now."""

    @property
    def status(self) -> str:
        """``added``, ``strengthened`` or ``echo``."""

    @property
    def superseded(self) -> Sequence[int]:
        """Older scenes that gave way to it."""

    @property
    def strengthened(self) -> Sequence[int]:
        """Recalled scenes that it took up."""


class MemoryPolicy(Protocol):
    """The numbers of a memory that a turn goes by."""

    @property
    def budget_tokens(self) -> int:
        """Tokens that recalled scenes may take."""

    @property
    def least_meaning(self) -> float:
        """Likeness of meaning below which nothing is brought up."""


class Memory(Protocol):
    """The scene memory."""

    @property
    def policy(self) -> MemoryPolicy:
        """Its numbers."""

    def recall(
        self,
        query: Pvq | str,
        /,
        *,
        budget_tokens: int | None = None,
        count_tokens: Callable[[str], int] | None = None,
        exclude: Iterable[int] = (),
        least: float = 0.0,
        at: datetime | None = None,
    ) -> Sequence[Recalled]:
        """Scenes that resonate with a request, the best first."""

    def add(
        self,
        scene: Scene,
        /,
        *,
        text: str,
        session: str,
        template: str,
        phase: str | None,
        predecessor: int | None,
        recalled: Sequence[int],
        shown: Sequence[int],
        replaces: int | None,
        at: datetime | None,
        score: float | None,
    ) -> Kept:
        """Store a turn durably."""

    def meanings(self, numbers: Sequence[int], /) -> Mapping[int, npt.NDArray[np.float32]]:
        """Vectors of scenes by their numbers, float32 [dim]; those that have none are left out."""

    def get(self, reference: int, /) -> RememberedScene | None:
        """A scene by its number."""

    def forget(self, number: int, /) -> object:
        """Forget a scene."""
