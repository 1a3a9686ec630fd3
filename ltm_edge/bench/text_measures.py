"""What is measured of texts: variety, repetition, and whether one answers the other more than any.

None of it is what the critics measure by, so that it can say whether their judgement is worth anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "distinct", "paired", "repeated", "similarities", "words"]

Vectors = npt.NDArray[np.float32]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words(text: str) -> list[str]:
    """The words of a text, folded."""
    return _WORD.findall(text.casefold())


def _runs(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def distinct(texts: Iterable[str], n: int = 2) -> float:
    """Share of different runs of ``n`` words among all of them, over all texts together.

    distinct-n of Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models" (2016). It falls
    with the number of words, so that it compares texts of about the same length. 0 where no text has ``n`` words.
    """
    runs = [run for text in texts for run in _runs(text, n)]
    return len(set(runs)) / len(runs) if runs else 0.0


def repeated(text: str, n: int = 3) -> float:
    """Share of the runs of ``n`` words in a text that stood in it before; 0 where it has fewer words.

    seq-rep-n of Welleck et al., "Neural Text Generation with Unlikelihood Training" (2020).
    """
    runs = _runs(text, n)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def similarities(ones: Vectors, others: Vectors) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Cosine of each vector to its partner, and to the partner of another: the control.

    Args:
        ones, others: float32 [n, dim], rows of length 1.

    Returns:
        Two of float64 [n]. The control pairs each with the one half of the list further on; of a single pair it is NaN.
    """
    n = len(ones)
    own = np.einsum("ij,ij->i", ones, others).astype(np.float64)
    if n < 2:
        return own, np.full(n, np.nan)
    far = np.roll(others, -(n // 2), axis=0)
    return own, np.einsum("ij,ij->i", ones, far).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference over the same requests, and twice its standard error; None where one request can't tell."""

    mean: float
    error: float | None


def paired(ones: Sequence[float], others: Sequence[float]) -> Difference:
    """How much greater ``ones`` are than ``others`` of the same requests, on average."""
    apart = np.asarray(ones, dtype=np.float64) - np.asarray(others, dtype=np.float64)
    if not len(apart):
        return Difference(math.nan, None)
    error = 2 * float(apart.std(ddof=1)) / math.sqrt(len(apart)) if len(apart) > 1 else None
    return Difference(float(apart.mean()), error)
