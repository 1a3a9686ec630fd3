"""Exhibit: what critics see of a turn. Nothing in it can be changed by them, and nothing in it is an instruction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ltm_edge.scene.record import Scene

__all__ = ["Embed", "Exhibit", "keeping", "likeness"]

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Texts to vectors of length 1, float32 [n, dim]."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A draft and what it is to be measured against.

    Attributes:
        request: what the person said.
        goal: what they want, where it is known.
        lang: language of the request.
        scene: the draft.
        recalled: what the scenes said that the memory brought up.
        earlier: scenes of earlier turns of this conversation, oldest first.
        drafts: earlier drafts of this turn, oldest first.
        disagreement: 1 - cosine to the consilium's runner-up; None: no consilium was held.
        embed: texts to vectors; None: no embedder, or it doesn't cover the language.
    """

    request: str
    goal: str | None
    lang: str
    scene: Scene
    recalled: tuple[str, ...] = ()
    earlier: tuple[Scene, ...] = ()
    drafts: tuple[Scene, ...] = ()
    disagreement: float | None = None
    embed: Embed | None = None


def keeping(exhibit: Exhibit, texts: Iterable[str]) -> Exhibit:
    """The exhibit with an embedder that computes every text once, ``texts`` at once and now."""
    if exhibit.embed is None:
        return exhibit
    embed = exhibit.embed
    known: dict[str, npt.NDArray[np.float32]] = {}

    def cached(wanted: Sequence[str]) -> npt.NDArray[np.float32]:
        new = list(dict.fromkeys(text for text in wanted if text not in known))
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in wanted])

    first = [text for text in texts if text.strip()]
    if first:
        cached(first)
    return replace(exhibit, embed=cached)


def likeness(exhibit: Exhibit, ones: Sequence[str], others: Sequence[str]) -> npt.NDArray[np.float32] | None:
    """Cosine of every one of ``ones`` to every one of ``others``, float32 [n, m] in [-1, 1].

    None where meanings can't be compared: no embedder, an empty text, or a vector that isn't one.
    """
    if exhibit.embed is None or not ones or not others or not all(text.strip() for text in (*ones, *others)):
        return None
    vectors = np.asarray(exhibit.embed([*ones, *others]), dtype=np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        return None
    cosines: npt.NDArray[np.float32] = np.clip(vectors[: len(ones)] @ vectors[len(ones) :].T, -1.0, 1.0)
    return cosines
