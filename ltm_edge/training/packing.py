"""Rows: texts that begin alike, computed once for what they share.

The texts of a row form a tree of tokens. Each token sees the ones before it in its own texts and no others, at the
positions that they have there, so that the losses are those of the texts computed one by one. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ltm_edge.training.tasks import Example, Line

__all__ = ["Row", "pack"]


@dataclass(frozen=True, slots=True)
class Row:
    """Texts as one tree of n tokens, with m tokens to predict.

    Attributes:
        examples: whose texts these are.
        tokens: int64 [n].
        positions: place of each token in its text, int64 [n].
        sees: bool [n, n]: which tokens (columns) each token sees.
        at: int64 [m]: the token behind which each prediction is read.
        targets: int64 [m]: what is to be predicted.
        weights: float32 [m]: what each prediction counts.
        owner: int64 [m]: the example that each prediction belongs to.
        choices: int64 [m, 2]: of a judgement, the tokens of the good and the bad answer; -1 for others.
    """

    examples: tuple[Example, ...]
    tokens: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    sees: npt.NDArray[np.bool_]
    at: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    owner: npt.NDArray[np.int64]
    choices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Row:
        """The row of some examples."""
        tree = _Tree()
        for index, example in enumerate(examples):
            for line in example.lines:
                tree.add(line, index)
        return tree.row(tuple(examples))


class _Tree:
    """Tokens by what stands before them."""

    def __init__(self) -> None:
        self.children: list[dict[int, int]] = [{}]  # of each token, and first of the empty text
        self.parents: list[int] = [-1]
        self.tokens: list[int] = [-1]
        self.depths: list[int] = [-1]
        self.wanted: list[tuple[int, int, float, int, tuple[int, int]]] = []

    def add(self, line: Line, owner: int) -> int:
        """Add a text; returns the tokens that were new."""
        node, before = 0, len(self.tokens)
        for token, weight in zip(line.tokens.tolist(), line.weights.tolist(), strict=True):
            if weight > 0 and node:
                self.wanted.append((node - 1, token, weight, owner, line.asked or (-1, -1)))
            child = self.children[node].get(token)
            if child is None:
                child = len(self.tokens)
                self.children[node][token] = child
                self.children.append({})
                self.parents.append(node)
                self.tokens.append(token)
                self.depths.append(self.depths[node] + 1)
            node = child
        return len(self.tokens) - before

    def row(self, examples: tuple[Example, ...]) -> Row:
        n = len(self.tokens) - 1
        sees = np.zeros((n + 1, n + 1), np.bool_)
        for node in range(1, n + 1):
            sees[node] = sees[self.parents[node]]
            sees[node, node] = True
        at, targets, weights, owner, choices = zip(*self.wanted, strict=True) if self.wanted else ((), (), (), (), ())
        return Row(
            examples,
            np.array(self.tokens[1:], np.int64),
            np.array(self.depths[1:], np.int64),
            np.ascontiguousarray(sees[1:, 1:]),
            np.array(at, np.int64),
            np.array(targets, np.int64),
            np.array(weights, np.float32),
            np.array(owner, np.int64),
            np.array(choices, np.int64).reshape(-1, 2),
        )


def pack(examples: Iterable[Example], row_tokens: int) -> list[Row]:
    """Rows of at most ``row_tokens`` different tokens each, an example of more in a row of its own.

    Examples that begin alike come into one row; rows are filled in the order of the texts.
    """
    ordered = sorted(examples, key=lambda example: (example.lines[0].tokens.tolist(), example.name))
    rows: list[Row] = []
    taken: list[Example] = []
    tree = _Tree()
    for example in ordered:
        size = sum(tree.add(line, len(taken)) for line in example.lines)
        if taken and len(tree.tokens) - 1 > row_tokens and size:
            rows.append(Row.of(taken))
            taken, tree = [], _Tree()
            for line in example.lines:
                tree.add(line, 0)
        taken.append(example)
    if taken:
        rows.append(Row.of(taken))
    return rows
