"""A LoRA as changes of a base model's tensors, whatever kind of file it came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gguf_tools.errors import BadLora, WrongBase
from gguf_tools.printable import printable
from gguf_tools.records import GgufInfo, TensorInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

__all__ = ["Delta", "Lora", "Replacement", "check_finite", "check_shapes", "check_weights", "listed"]

_LISTED = 12


@dataclass(frozen=True, slots=True)
class Delta:
    """A low-rank change of one tensor W [rows, columns]: W + scale · left · right.

    Attributes:
        target: name of the tensor in the base.
        rows, columns: shape that it must have there, in numpy's order.
        rank: inner dimension.
        scale: alpha / rank, or alpha / √rank.
        left: gives float32 [rows, rank].
        right: gives float32 [rank, columns].
    """

    target: str
    rows: int
    columns: int
    rank: int
    scale: float
    left: Callable[[], Floats]
    right: Callable[[], Floats]


@dataclass(frozen=True, slots=True)
class Replacement:
    """A tensor that was trained as a whole (`modules_to_save`, biases).

    Attributes:
        target: name of the tensor in the base.
        shape: in numpy's order.
        values: gives float32 of that shape.
    """

    target: str
    shape: tuple[int, ...]
    values: Callable[[], Floats]


@dataclass(frozen=True, slots=True)
class Lora:
    """What a LoRA does to a base model.

    Attributes:
        path: the file with its weights.
        deltas: low-rank changes by the tensor's name.
        replacements: tensors that it brings as a whole, by name.
        base_sha256: hash of the base that it was made for, where it says so.
    """

    path: Path
    deltas: Mapping[str, Delta]
    replacements: Mapping[str, Replacement]
    base_sha256: str | None = None

    @property
    def targets(self) -> frozenset[str]:
        """Names of all tensors that it changes."""
        return frozenset(self.deltas) | frozenset(self.replacements)


def check_shapes(lora: Lora, base: GgufInfo) -> None:
    """Refuse a LoRA that doesn't fit the base's tensors.

    Raises:
        BadLora: the base has no tensor of a name; lists them.
        WrongBase: a tensor has another shape there; lists them.
    """
    tensors = {tensor.name: tensor for tensor in base.tensors}
    missing = sorted(lora.targets - tensors.keys())
    if missing:
        raise BadLora(lora.path, f"changes tensors that the base doesn't have: {listed(missing)}{_tied(missing)}")
    wanted: dict[str, tuple[int, ...]] = {name: (delta.rows, delta.columns) for name, delta in lora.deltas.items()}
    wanted |= {name: one.shape for name, one in lora.replacements.items()}
    wrong = [
        f"'{name}' {list(shape)} here, {list(found)} in the base"
        for name, shape in sorted(wanted.items())
        if (found := _shape(tensors[name])) != shape
    ]
    if wrong:
        raise WrongBase(lora.path, f"doesn't fit the base: {listed(wrong, quoted=False)}")


def check_finite(path: Path, name: str, values: Floats) -> None:
    """Refuse weights that are NaN or infinite, by the tensor's name.

    Raises:
        BadLora: there are such.
    """
    import numpy as np

    if not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        raise BadLora(path, f"tensor '{printable(name, 120)}' holds {count} NaN or infinite of {values.size} numbers")


def check_weights(lora: Lora) -> list[str]:
    """Tensors that hold NaN or infinite numbers, a line each; all weights are read."""
    problems = []
    loads = [load for delta in lora.deltas.values() for load in (delta.left, delta.right)]
    for load in [*loads, *(one.values for one in lora.replacements.values())]:
        try:
            load()
        except BadLora as error:
            problems.append(str(error))
    return problems


def listed(names: list[str], *, quoted: bool = True) -> str:
    """The first of many names, and how many more there are."""
    shown = [f"'{printable(name, 120)}'" if quoted else printable(name, 200) for name in names[:_LISTED]]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown) + more


def _tied(missing: list[str]) -> str:
    if "output.weight" not in missing:
        return ""
    return " (it uses its token embeddings as the output, so a change of the output alone can't be merged)"


def _shape(tensor: TensorInfo) -> tuple[int, ...]:
    return tuple(reversed(tensor.shape))
