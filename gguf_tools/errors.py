"""What can be wrong with a GGUF file: one class per malformation, each with a stable `code`.

The message says which file, what was found, what is allowed, at which byte, and the remedy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from gguf_tools.printable import printable_path

_DAMAGED = "the file is damaged; fetch or make it again"


class GgufError(Exception):
    """A file that can't be taken as GGUF.

    Attributes:
        code: stable name of the malformation, for scripts.
        path: the file.
        what: what was found and what is allowed.
        offset: byte of the file where it was found, None where that says nothing.
        remedy: what to do about it.
    """

    code: ClassVar[str] = "gguf"
    remedy: str = _DAMAGED

    def __init__(
        self, path: str | os.PathLike[str], what: str, *, offset: int | None = None, remedy: str | None = None
    ) -> None:
        self.path = os.fspath(path)
        self.what = what
        self.offset = offset
        if remedy is not None:
            self.remedy = remedy
        place = "" if offset is None else f" (at byte {offset})"
        super().__init__(f"{printable_path(self.path)}: {what}{place}; {self.remedy}")


class Unreadable(GgufError):
    """The file isn't there, is no regular file, or the system refuses to read it."""

    code = "unreadable"
    remedy = "name a GGUF file that you may read"


class ChangedFile(GgufError):
    """The file changed between reading its header and reading from it again."""

    code = "changed"
    remedy = "open it again once nothing writes to it"


class NotGguf(GgufError):
    """The first bytes are not those of a GGUF file."""

    code = "not-gguf"
    remedy = "name a GGUF file"


class UnsupportedVersion(GgufError):
    """A GGUF version other than 2 and 3."""

    code = "version"
    remedy = "convert the model again with a current llama.cpp"


class BigEndian(UnsupportedVersion):
    """A GGUF file in big-endian byte order."""

    code = "big-endian"
    remedy = "get the little-endian file, or convert it with llama.cpp's gguf_convert_endian.py"


class Truncated(GgufError):
    """The file ends before what its header announces."""

    code = "truncated"
    remedy = "the download is probably incomplete; fetch the file again"


class LimitExceeded(GgufError):
    """A count or a length above what any real model has."""

    code = "limit"


class BadKey(GgufError):
    """A metadata key that is empty or not printable ASCII."""

    code = "bad-key"


class DuplicateKey(GgufError):
    """Two metadata entries of one name."""

    code = "duplicate-key"


class UnknownValueType(GgufError):
    """A metadata value of a type that GGUF doesn't have."""

    code = "value-type"


class NestedArray(GgufError):
    """An array of arrays, which no reader of GGUF supports."""

    code = "nested-array"


class BadBool(GgufError):
    """A truth value that is neither 0 nor 1."""

    code = "bool"


class BadText(GgufError):
    """A text that must be UTF-8 and isn't."""

    code = "text"


class BadAlignment(GgufError):
    """`general.alignment` isn't a uint32 power of two in the allowed range."""

    code = "alignment"


class BadTensorName(GgufError):
    """A tensor name that is empty or has characters that can't be printed."""

    code = "tensor-name"


class DuplicateTensor(GgufError):
    """Two tensors of one name."""

    code = "duplicate-tensor"


class BadShape(GgufError):
    """A tensor with too many dimensions, an empty one, too many elements, or rows that don't fill blocks."""

    code = "shape"


class UnknownTensorType(GgufError):
    """A tensor type that ggml doesn't have, or no longer has."""

    code = "tensor-type"
    remedy = "convert the model again with a current llama.cpp"


class Misaligned(GgufError):
    """Tensor data that doesn't start at a multiple of the alignment."""

    code = "misaligned"


class Overlap(GgufError):
    """Tensor data that starts inside the data of an earlier tensor."""

    code = "overlap"


class Hole(GgufError):
    """Unused bytes between two tensors beyond what the alignment asks for."""

    code = "hole"


class Unloadable(GgufError):
    """A sound file whose hyperparameters or vocabulary no model can have; llama.cpp would end the process."""

    code = "unloadable"


class BadLtmValue(GgufError):
    """An `ltm.*` key that isn't a string, is missing, or doesn't hold what FORMAT.md says."""

    code = "ltm-value"
    remedy = "make the bundle again with ltm-edge convert"


class NewerFormat(GgufError):
    """A bundle of a newer format version."""

    code = "ltm-version"
    remedy = "update ltm-edge"


class BadManifest(GgufError):
    """The manifest of a sidecar folder is missing, another bundle's, or not what FORMAT.md says."""

    code = "manifest"
    remedy = "put the bundle's own sidecar folder beside it, or make the bundle again with ltm-edge convert"


class OutputExists(GgufError):
    """There is a file or a folder already where one would be written."""

    code = "exists"
    remedy = "choose another name, or replace it with --force"


class ManyProblems(GgufError):
    """Several things are wrong; the message has all of them.

    Attributes:
        problems: one line each.
    """

    code = "problems"

    def __init__(self, path: str | os.PathLike[str], problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(path, "; ".join(self.problems), remedy="nothing was written")


class DiskFull(GgufError):
    """There is no room for what is to be written; nothing of it was left behind."""

    code = "disk-full"
    remedy = "free some space, or write to another disk"


class BadSource(GgufError):
    """A file of a bundle folder that is missing, damaged, or not what FORMAT.md says."""

    code = "source"
    remedy = "mend the file"


class BadLora(GgufError):
    """A LoRA whose files don't describe one: a half of a pair, an unknown alpha, NaN or infinite weights."""

    code = "lora"
    remedy = "save the adapter again with PEFT or llama.cpp's convert_lora_to_gguf.py"


class UnsupportedLora(GgufError):
    """A LoRA of a kind that can't be merged by adding low-rank products to the base's tensors."""

    code = "lora-kind"
    remedy = "merge it where it was trained, and convert the result with llama.cpp's convert_hf_to_gguf.py"


class WrongBase(GgufError):
    """A base model that a LoRA or a bundle folder was not made for."""

    code = "wrong-base"
    remedy = "name the base model that the LoRA was trained on"


class UnsupportedType(GgufError):
    """A tensor type that can't be written here."""

    code = "outtype"
    remedy = "choose another --outtype"
