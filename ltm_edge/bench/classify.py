"""A small classifier of vectors, and how likely its success is by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Told", "tell_apart"]

_RIDGE = 1.0
_PERMUTATIONS = 2000

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Told:
    """How well classes are told apart.

    Attributes:
        accuracy: share of the right answers, over both halves.
        p: share of the permutations of the labels (and of none) that come to this accuracy or more.
        confusion: counts by true class, then by the class that was told.
    """

    accuracy: float
    p: float
    confusion: tuple[tuple[int, ...], ...]


def tell_apart(vectors: Vectors, seed: int = 0) -> Told:
    """Tell classes apart in each half of the groups by what was learned from the other half.

    The classifier is least squares on the classes' indicators with a ridge of 1 (Rifkin, "Everything Old Is New Again",
    2002): the greatest output is the class. Under the null hypothesis the vectors of one group could carry each other's
    labels; so these are permuted within groups, and the classifier learns again.

    Args:
        vectors: float32 [groups, classes, dim]; even groups are one half, odd ones the other.
        seed: of the permutations.

    Raises:
        ValueError: fewer than two groups or classes.
    """
    groups, classes, dim = vectors.shape
    if groups < 2 or classes < 2:
        raise ValueError(f"{groups} groups of {classes} classes; two of each are the least")
    halves = (np.arange(0, groups, 2), np.arange(1, groups, 2))
    steps = []
    for learned, asked in (halves, halves[::-1]):
        known = vectors[learned].reshape(-1, dim).astype(np.float64)
        new = vectors[asked].reshape(-1, dim).astype(np.float64)
        mean = known.mean(axis=0)
        known, new = known - mean, new - mean
        # What is learned is linear in the labels: one matrix takes those of one half to outputs for the other.
        steps.append((learned, asked, new @ known.T @ np.linalg.inv(known @ known.T + _RIDGE * np.eye(len(known)))))
    names = np.tile(np.arange(classes), (groups, 1))
    told = _told(names, steps, classes)
    accuracy = float((told == names).mean())
    random = np.random.default_rng(seed)
    as_good = 1
    for _ in range(_PERMUTATIONS):
        shuffled = random.permuted(names, axis=1)
        as_good += float((_told(shuffled, steps, classes) == shuffled).mean()) >= accuracy
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (names.ravel(), told.ravel()), 1)
    return Told(accuracy, as_good / (_PERMUTATIONS + 1), tuple(tuple(int(n) for n in row) for row in confusion))


def _told(labels: Labels, steps: list[tuple[Labels, Labels, npt.NDArray[np.float64]]], classes: int) -> Labels:
    told = np.empty_like(labels)
    for learned, asked, step in steps:
        outputs = step @ (np.eye(classes)[labels[learned].ravel()] - 1 / classes)
        told[asked] = outputs.argmax(axis=1).reshape(len(asked), classes)
    return told
