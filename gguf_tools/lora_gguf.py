"""LoRA in GGUF form, as llama.cpp's `convert_lora_to_gguf.py` writes it: reading and writing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gguf_tools import keys
from gguf_tools.entries import Entry, number_entry, text_entry
from gguf_tools.errors import BadLora, WrongBase
from gguf_tools.files import writing
from gguf_tools.kind import kind
from gguf_tools.lora import Delta, Lora, check_finite, listed
from gguf_tools.printable import printable
from gguf_tools.quants import can_read, dequantise
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufInfo, TensorInfo
from gguf_tools.types import TENSOR_TYPES, ValueType
from gguf_tools.writer import GgufWriter, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

__all__ = ["Factors", "read_gguf_lora", "write_gguf_lora"]

_A, _B = ".lora_a", ".lora_b"
_MAX_ALPHA = 1e9
# Its A stands transposed: llama.cpp takes rows of it by token.
_EMBEDDING = "token_embd.weight"


def read_gguf_lora(path: str | os.PathLike[str], base: GgufInfo) -> Lora:
    """The LoRA in a GGUF file; its weights are read when they are asked for.

    Raises:
        GgufError: it is no LoRA, a half of a pair is missing, or it is for another architecture.
    """
    info = read_gguf(path)
    file = Path(info.path)
    found = kind(info)
    if found.name != "adapter" or info.text(keys.ADAPTER_TYPE) != "lora":
        raise BadLora(file, f"is no LoRA: {printable(found.reason)}", remedy="name a LoRA in GGUF form")
    if info.architecture != base.architecture:
        ours, theirs = printable(info.architecture, 40), printable(base.architecture, 40)
        raise WrongBase(file, f"is for the architecture '{ours}', the base has '{theirs}'")
    alpha = info.fields.get(keys.ADAPTER_LORA_ALPHA)
    if alpha is None or not isinstance(alpha.value, float):
        raise BadLora(file, f"has no number '{keys.ADAPTER_LORA_ALPHA}'")
    if not abs(alpha.value) <= _MAX_ALPHA:
        raise BadLora(file, f"'{keys.ADAPTER_LORA_ALPHA}' is {alpha.value:g}, {_MAX_ALPHA:g} at most is sound")
    tensors = {tensor.name: tensor for tensor in info.tensors}
    odd = sorted(name for name in tensors if not name.endswith((_A, _B)) or _partner(name) not in tensors)
    if odd:
        raise BadLora(file, f"has tensors that are no pair of lora_a and lora_b: {listed(odd)}")
    deltas = {}
    for name in sorted(tensors):
        if name.endswith(_A):
            target = name.removesuffix(_A)
            deltas[target] = _delta(info, target, tensors[name], tensors[target + _B], alpha.value)
    if not deltas:
        raise BadLora(file, "has no tensors")
    return Lora(file, deltas, {}, info.text(keys.ADAPTER_BASE_SHA256))


def _partner(name: str) -> str:
    return name.removesuffix(_A) + _B if name.endswith(_A) else name.removesuffix(_B) + _A


def _delta(info: GgufInfo, target: str, a: TensorInfo, b: TensorInfo, alpha: float) -> Delta:
    if len(a.shape) != 2 or len(b.shape) != 2 or not can_read(a.type) or not can_read(b.type):
        raise BadLora(info.path, f"the pair of '{target}' isn't two matrices of a known type")
    rank = b.shape[0]
    if (a.shape[0] if target == _EMBEDDING else a.shape[1]) != rank:
        raise BadLora(info.path, f"the pair of '{target}' has ranks that differ: {list(a.shape)}, {list(b.shape)}")
    # llama.cpp takes an alpha of 0 for "no factor".
    scale = alpha / rank if alpha else 1.0
    if target == _EMBEDDING:
        return Delta(target, a.shape[1], b.shape[1], rank, scale, _rows(info, a), _transposed(_rows(info, b)))
    return Delta(target, b.shape[1], a.shape[0], rank, scale, _rows(info, b), _rows(info, a))


def _rows(info: GgufInfo, tensor: TensorInfo) -> Callable[[], Floats]:
    def load() -> Floats:
        values = dequantise(info.stamp.read(tensor.offset, tensor.nbytes), tensor.type, tensor.shape[0])
        check_finite(Path(info.path), tensor.name, values)
        return values

    return load


def _transposed(load: Callable[[], Floats]) -> Callable[[], Floats]:
    return lambda: load().T


@dataclass(frozen=True, slots=True)
class Factors:
    """A low-rank change to be written: left · right, the scale multiplied in.

    Attributes:
        left: float32 [rows, rank].
        right: float32 [rank, columns].
    """

    left: Floats
    right: Floats

    @property
    def rank(self) -> int:
        """Inner dimension."""
        return int(self.left.shape[1])


def write_gguf_lora(
    path: Path, architecture: str, factors: Mapping[str, Factors], extra: Iterable[Entry] = (), *, name: str = ""
) -> None:
    """Write a LoRA for llama.cpp: at scale 1 it adds left · right to each tensor.

    llama.cpp multiplies by alpha / rank, and alpha is one number for the file; what other ranks get too much or too
    little is multiplied into their right factors.

    Args:
        path: the file; replaced once everything is on the disk.
        architecture: the base's.
        factors: by the tensor's name in the base; none of them the token embeddings.
        extra: more metadata.
        name: `general.name`.
    """
    alpha = max(one.rank for one in factors.values())
    entries = [text_entry(keys.GENERAL_ARCHITECTURE, architecture), text_entry(keys.GENERAL_TYPE, "adapter")]
    if name:
        entries.append(text_entry(keys.GENERAL_NAME, name))
    entries += [
        text_entry(keys.ADAPTER_TYPE, "lora"),
        number_entry(keys.ADAPTER_LORA_ALPHA, ValueType.FLOAT32, float(alpha)),
        *extra,
    ]
    specs = []
    data: dict[str, Floats] = {}
    for target in sorted(factors):
        one = factors[target]
        right = one.right * (one.rank / alpha) if one.rank != alpha else one.right
        for suffix, values in ((_A, right), (_B, one.left)):
            specs.append(TensorSpec(target + suffix, (values.shape[1], values.shape[0]), TENSOR_TYPES[0]))
            data[target + suffix] = values
    with writing(path) as stream:
        writer = GgufWriter(stream)
        writer.begin(entries, specs)
        for spec in specs:
            writer.tensor(spec.name, [data[spec.name].astype("<f4").tobytes()])
        writer.end()
