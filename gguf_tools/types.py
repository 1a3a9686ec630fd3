"""The value types and tensor types of GGUF: ids, names and sizes.

The same numbers as in ggml's `ggml.h` and in the `gguf` package, repeated here because importing that
package costs 200 ms and the header of every model is read at every start. The tests compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["TENSOR_TYPES", "VALUE_SIZES", "TensorType", "ValueType"]


class ValueType(IntEnum):
    """Type of a metadata value."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


# Bytes and struct format of the types that have a fixed size.
VALUE_SIZES: dict[ValueType, tuple[int, str]] = {
    ValueType.UINT8: (1, "B"),
    ValueType.INT8: (1, "b"),
    ValueType.UINT16: (2, "H"),
    ValueType.INT16: (2, "h"),
    ValueType.UINT32: (4, "I"),
    ValueType.INT32: (4, "i"),
    ValueType.FLOAT32: (4, "f"),
    ValueType.BOOL: (1, "?"),
    ValueType.UINT64: (8, "Q"),
    ValueType.INT64: (8, "q"),
    ValueType.FLOAT64: (8, "d"),
}


@dataclass(frozen=True, slots=True)
class TensorType:
    """One of ggml's tensor types.

    Attributes:
        id: number in the file.
        name: ggml's name, such as `Q4_K`.
        block: elements of one block; a row holds whole blocks.
        block_bytes: bytes of one block.
    """

    id: int
    name: str
    block: int
    block_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits that one element takes."""
        return 8 * self.block_bytes / self.block


TENSOR_TYPES: dict[int, TensorType] = {
    entry[0]: TensorType(*entry)
    for entry in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 36),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
        (42, "Q2_0", 64, 18),
    )
}
