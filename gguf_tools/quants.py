"""Between ggml's tensor types and float32: llama.cpp's own functions where it is installed, else the `gguf` package's.

Both give the same bytes for the types that the `gguf` package can write (a test compares them); only llama.cpp's
quantiser writes K-quants. It is taken from `llama_cpp`'s library folder by `ctypes` and called row by row, so that a
model is never in memory as a whole, nor as a float16 file on the disk.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_tools.types import TENSOR_TYPES, TensorType
from gguf_tools.writer import Bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

__all__ = ["can_read", "can_write", "dequantise", "has_native", "quantise", "type_named", "writable_types"]

_BY_NAME = {entry.name: entry for entry in TENSOR_TYPES.values()}
_PLAIN = ("F32", "F16", "BF16")
_PACKAGE = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")
# Those that need no importance matrix; the smallest IQ types are useless without one.
_NATIVE = (*_PACKAGE, "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS")
_READ = (*_NATIVE, "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_S", "IQ1_M")


def type_named(name: str) -> TensorType | None:
    """The tensor type of that name, in any case."""
    return _BY_NAME.get(name.upper())


def can_read(kind: TensorType) -> bool:
    """Whether its values can be had as float32."""
    return kind.name in _PLAIN or kind.name in _READ


def can_write(kind: TensorType) -> bool:
    """Whether values can be written in it on this machine."""
    return kind.name in _PLAIN or kind.name in _PACKAGE or (kind.name in _NATIVE and has_native())


def writable_types() -> list[str]:
    """Names of the types that can be written on this machine."""
    return [kind.name for kind in TENSOR_TYPES.values() if can_write(kind)]


def has_native() -> bool:
    """Whether llama.cpp's own functions are there."""
    return _library() is not None


def dequantise(data: Bytes, kind: TensorType, columns: int) -> Floats:
    """Whole rows of a tensor as float32 [rows, columns]; a new array.

    Raises:
        ValueError: the type can't be read.
    """
    import numpy as np

    if kind.name == "F32":
        return np.frombuffer(data, "<f4").astype(np.float32, copy=True).reshape(-1, columns)
    if kind.name == "F16":
        return np.frombuffer(data, "<f2").astype(np.float32).reshape(-1, columns)
    if kind.name == "BF16":
        wide: npt.NDArray[np.uint32] = np.frombuffer(data, "<u2").astype(np.uint32)
        return (wide << 16).view(np.float32).reshape(-1, columns)
    if not can_read(kind):
        raise ValueError(f"{kind.name} can't be read")
    raw = np.frombuffer(data, np.uint8)
    library = _library()
    if library is not None:
        count = raw.size // kind.block_bytes * kind.block
        out = np.empty(count, np.float32)
        function = getattr(library, "dequantize_row_" + _c_name(kind))
        function(raw.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(count))
        return out.reshape(-1, columns)
    import gguf

    rows = raw.reshape(-1, columns // kind.block * kind.block_bytes)
    found: Floats = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(kind.id))
    return np.ascontiguousarray(found, np.float32).reshape(-1, columns)


def quantise(values: Floats, kind: TensorType) -> memoryview:
    """Rows as bytes of that type. The values must be finite.

    Args:
        values: float32 [rows, columns], the columns a multiple of the type's block.
        kind: a type that can be written.

    Raises:
        ValueError: the type can't be written here.
    """
    import numpy as np

    values = np.ascontiguousarray(values, np.float32)
    if kind.name == "F32":
        return _bytes(values)
    if kind.name == "F16":
        with np.errstate(over="ignore"):
            return _bytes(values.astype("<f2"))
    if kind.name == "BF16":
        bits = values.view(np.uint32)
        # Round to nearest, ties to even.
        rounded = (bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))) >> np.uint32(16)
        return _bytes(rounded.astype("<u2"))
    library = _library()
    if library is not None and kind.name in _NATIVE:
        rows, columns = values.shape
        out = np.empty(values.size // kind.block * kind.block_bytes, np.uint8)
        library.ggml_quantize_chunk(
            ctypes.c_int(kind.id),
            values.ctypes.data_as(ctypes.c_void_p),
            out.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(0),
            ctypes.c_int64(rows),
            ctypes.c_int64(columns),
            None,
        )
        return _bytes(out)
    if kind.name in _PACKAGE:
        return _package_quantise(values, kind)
    raise ValueError(f"{kind.name} can't be written here")


def _package_quantise(values: Floats, kind: TensorType) -> memoryview:
    import gguf
    import numpy as np

    made: npt.NDArray[np.uint8] = gguf.quants.quantize(values, gguf.GGMLQuantizationType(kind.id))
    return _bytes(np.ascontiguousarray(made))


def _bytes(values: npt.NDArray[Any]) -> memoryview:
    return values.data.cast("B")


def _c_name(kind: TensorType) -> str:
    """A type's name in ggml's functions: `Q4_0` is `q4_0`, `Q4_K` is `q4_K`."""
    lowered = kind.name.lower()
    return lowered[:-1] + "K" if lowered.endswith("_k") else lowered


@lru_cache(maxsize=1)
def _library() -> Any:
    """llama.cpp's `ggml-base`, or None where llama-cpp-python isn't installed or has another layout."""
    try:
        found = importlib.util.find_spec("llama_cpp")
    except (ImportError, ValueError):
        return None
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        name = {"win32": "ggml-base.dll", "darwin": "libggml-base.dylib"}.get(sys.platform, "libggml-base.so")
        try:
            library = ctypes.CDLL(str(Path(folder) / "lib" / name))
            library.ggml_quantize_chunk.restype = ctypes.c_size_t
            for kind in _READ:
                getattr(library, "dequantize_row_" + _c_name(_BY_NAME[kind])).restype = None
        except (OSError, AttributeError):
            continue
        return library
    return None
