"""Checking a whole GGUF file: header, `ltm.*` entries, sidecar folder, and the numbers in its float tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gguf_tools import keys
from gguf_tools.errors import GgufError
from gguf_tools.ltm import ltm_entries
from gguf_tools.printable import byte_count, printable
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufInfo, TensorInfo
from gguf_tools.sidecar import check_sidecar, sidecar_folder

if TYPE_CHECKING:
    import numpy

__all__ = ["Report", "verify"]

_FLOATS = ("F32", "F16", "BF16", "F64")
# A multiple of every float's size; what verifying costs in memory is about three times this.
_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """What verifying found.

    Attributes:
        file: the file.
        problems: one line each; empty if all is well.
        tensors: tensors in the file.
        checked: float tensors whose numbers were read.
        nbytes: bytes of those.
    """

    file: str
    problems: tuple[str, ...]
    tensors: int
    checked: int
    nbytes: int


def verify(path: str | os.PathLike[str]) -> Report:
    """Check the file and report all that is wrong. Quantised tensors are checked for place and size only."""
    try:
        info = read_gguf(path)
    except GgufError as error:
        return Report(os.fspath(path), (str(error),), 0, 0, 0)
    problems = []
    if info.trailing:
        problems.append(f"{byte_count(info.trailing)} behind the last tensor that nothing accounts for")
    try:
        sidecar = ltm_entries(info).get(keys.LTM_SIDECAR_SHA256)
        if sidecar is not None:
            problems += check_sidecar(sidecar_folder(info.path), sidecar)
    except GgufError as error:
        problems.append(f"{error.what}; {error.remedy}")
    floats = [tensor for tensor in info.tensors if tensor.type.name in _FLOATS]
    try:
        problems += _unfit_numbers(info, floats)
    except OSError as error:
        problems.append(f"can't be read: {printable(error.strerror or str(error))}")
    return Report(info.path, tuple(problems), len(info.tensors), len(floats), sum(t.nbytes for t in floats))


def _unfit_numbers(info: GgufInfo, tensors: list[TensorInfo]) -> Iterator[str]:
    """One line for every float tensor that holds NaN or infinity."""
    if not tensors:
        return
    import numpy as np

    with Path(info.path).open("rb") as file:
        for tensor in tensors:
            nan = infinite = 0
            file.seek(tensor.offset)
            left = tensor.nbytes
            while left:
                wanted = min(left, _CHUNK)
                data = file.read(wanted)
                if len(data) != wanted:
                    yield f"tensor '{tensor.name}': the file became shorter while it was being read"
                    return
                left -= wanted
                values = _as_floats(data, tensor.type.name)
                nan += int(np.count_nonzero(np.isnan(values)))
                infinite += int(np.count_nonzero(np.isinf(values)))
            if nan or infinite:
                yield f"tensor '{tensor.name}' holds {nan} NaN and {infinite} infinite of {tensor.elements} numbers"


def _as_floats(data: bytes, name: str) -> numpy.ndarray[tuple[int], numpy.dtype[numpy.floating]]:
    import numpy as np

    if name == "BF16":
        # The upper half of a float32.
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[name])
