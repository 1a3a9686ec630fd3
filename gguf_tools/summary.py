"""What a person wants to know about a GGUF file, as one record, as lines and as JSON."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gguf_tools import keys
from gguf_tools.bundle_reader import BundleReader
from gguf_tools.errors import BadLtmValue, BadManifest, GgufError, NewerFormat
from gguf_tools.kind import kind
from gguf_tools.ltm import ltm_entries
from gguf_tools.printable import byte_count, printable, printable_path
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufArray, GgufInfo

__all__ = ["Summary", "TypeShare", "inspect_file", "summarise"]


@dataclass(frozen=True, slots=True)
class TypeShare:
    """How much of a file is of one tensor type.

    Attributes:
        type: ggml's name.
        tensors: number of tensors.
        elements: their elements.
        nbytes: their bytes.
    """

    type: str
    tensors: int
    elements: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A GGUF file in short. Texts are as they stand in the file; `lines()` makes them safe to print.

    Attributes:
        file: path.
        file_size: bytes.
        gguf_version: 2 or 3.
        kind: "chat", "vocabulary", "embedding", "adapter", "projector" or "other".
        kind_reason: by what that was seen.
        name, architecture, licence: as the file says, None where it doesn't.
        languages: as the file says.
        parameters: elements of all tensors.
        tensors: number of tensors.
        bits_per_weight: mean over all tensors.
        types: share of every tensor type, the largest first.
        context_length, embedding_length, layers, experts: as the file says.
        vocabulary: number of tokens.
        tokenizer: its model, and the pre-tokenizer where there is one.
        chat_template: length in characters, None if there is none.
        ltm: `ltm.*` entries; those that aren't strings are shown as their type.
        ltm_problem: what is wrong with them, or with the sidecar folder if it was looked at.
        trailing: bytes behind the last tensor that nothing accounts for.
    """

    file: str
    file_size: int
    gguf_version: int
    kind: str
    kind_reason: str
    name: str | None
    architecture: str | None
    licence: str | None
    languages: tuple[str, ...]
    parameters: int
    tensors: int
    bits_per_weight: float
    types: tuple[TypeShare, ...]
    context_length: int | None
    embedding_length: int | None
    layers: int | None
    experts: int | None
    vocabulary: int | None
    tokenizer: str | None
    chat_template: int | None
    ltm: Mapping[str, str]
    ltm_problem: str | None
    trailing: int

    def to_dict(self) -> dict[str, object]:
        """Plain types for JSON. Parts of `ltm` are given in full."""
        return {**asdict(self), "file": printable_path(self.file), "ltm": dict(self.ltm)}

    def lines(self) -> list[tuple[str, str]]:
        """Label and value of every line to show, in order; values are safe to print."""
        rows = [
            ("file", printable_path(self.file)),
            ("size", byte_count(self.file_size)),
            ("kind", f"{self.kind} ({printable(self.kind_reason)})"),
            ("name", _shown(self.name)),
            ("architecture", _shown(self.architecture)),
            ("licence", _shown(self.licence)),
            ("languages", printable(", ".join(self.languages)) or "-"),
            ("parameters", f"{parameter_count(self.parameters)} in {self.tensors} tensors"),
            ("quantisation", self._quantisation()),
            ("context", _tokens(self.context_length)),
            ("layers", _number(self.layers)),
            ("embedding", _number(self.embedding_length)),
            ("tokenizer", _shown(self.tokenizer) + (f", {self.vocabulary} tokens" if self.vocabulary else "")),
            ("chat template", "none" if self.chat_template is None else f"yes, {self.chat_template} characters"),
            ("GGUF version", str(self.gguf_version)),
        ]
        if self.experts:
            rows.insert(11, ("experts", str(self.experts)))
        if not self.ltm:
            rows.append(("ltm keys", "none: runs under the packaged overlay"))
        rows += [(printable(key, 80), _ltm_line(value)) for key, value in self.ltm.items()]
        if self.ltm_problem:
            rows.append(("problem", printable(self.ltm_problem, 4096)))
        if self.trailing:
            rows.append(("problem", f"{byte_count(self.trailing)} behind the last tensor that nothing accounts for"))
        return rows

    def _quantisation(self) -> str:
        if not self.types:
            return "-"
        total = sum(share.nbytes for share in self.types)
        mix = ", ".join(f"{s.type} {100 * s.nbytes / total:.0f} % ({s.tensors})" for s in self.types)
        return f"{mix}; {self.bits_per_weight:.2f} bits per weight"


def inspect_file(
    path: str | os.PathLike[str], *, hasher: Callable[[Path], str] | None = None
) -> tuple[Summary, BundleReader | None]:
    """A file's summary, and the file as a bundle; None where what makes it one is wrong, as the summary says then.

    Args:
        path: the GGUF file.
        hasher: gives the SHA-256 of a file; None reads every file of the sidecar folder.

    Raises:
        GgufError: it is no GGUF, or damaged.
    """
    info = read_gguf(path)
    summary = summarise(info)
    try:
        return summary, BundleReader.of(info, hasher=hasher)
    except (BadLtmValue, NewerFormat):  # the model itself can still be shown
        return summary, None
    except BadManifest as error:
        return replace(summary, ltm_problem=str(error)), None


def summarise(info: GgufInfo) -> Summary:
    """The summary of a checked header.

    Raises:
        ChangedFile, Unreadable: the list of languages had to be read from the file and couldn't be.
    """
    found = kind(info)
    entries, problem = _ltm(info)
    types = _shares(info)
    parameters = sum(share.elements for share in types)
    bits = 8 * sum(share.nbytes for share in types) / parameters if parameters else 0.0
    tokens = info.array(keys.TOKENIZER_TOKENS)
    template = info.text(keys.TOKENIZER_CHAT_TEMPLATE)
    parts = [info.text(keys.TOKENIZER_MODEL), info.text(keys.TOKENIZER_PRE)]
    return Summary(
        file=info.path,
        file_size=info.file_size,
        gguf_version=info.version,
        kind=found.name,
        kind_reason=found.reason,
        name=info.text(keys.GENERAL_NAME) or info.text(keys.GENERAL_BASENAME),
        architecture=info.architecture or None,
        licence=info.text(keys.GENERAL_LICENSE),
        languages=_languages(info.array(keys.GENERAL_LANGUAGES)),
        parameters=parameters,
        tensors=len(info.tensors),
        bits_per_weight=round(bits, 4),
        types=types,
        context_length=info.arch_number(keys.ARCH_CONTEXT_LENGTH),
        embedding_length=info.arch_number(keys.ARCH_EMBEDDING_LENGTH),
        layers=info.arch_number(keys.ARCH_BLOCK_COUNT),
        experts=info.arch_number(keys.ARCH_EXPERT_COUNT),
        vocabulary=len(tokens) if tokens is not None else None,
        tokenizer=" / ".join(part for part in parts if part) or None,
        chat_template=len(template) if template else None,
        ltm=entries,
        ltm_problem=problem,
        trailing=info.trailing,
    )


def parameter_count(number: int) -> str:
    """A number of parameters as models are named: `135 M`, `7.24 B`."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}" if number < 1000 * size else f"{number / size:.0f} {unit}"
    return str(number)


def _shares(info: GgufInfo) -> tuple[TypeShare, ...]:
    sums: dict[str, list[int]] = {}
    for tensor in info.tensors:
        row = sums.setdefault(tensor.type.name, [0, 0, 0])
        row[0] += 1
        row[1] += tensor.elements
        row[2] += tensor.nbytes
    shares = [TypeShare(name, *row) for name, row in sums.items()]
    return tuple(sorted(shares, key=lambda share: (-share.nbytes, share.type)))


def _ltm(info: GgufInfo) -> tuple[dict[str, str], str | None]:
    try:
        return dict(ltm_entries(info)), None
    except GgufError as error:
        found = {key: field for key, field in info.fields.items() if key.startswith(keys.LTM_PREFIX)}
        shown = {k: f.value if isinstance(f.value, str) else f"<{f.type.name}>" for k, f in found.items()}
        return shown, f"{error.what}; {error.remedy}"


def _languages(array: GgufArray | None) -> tuple[str, ...]:
    if array is None or array.nbytes > 4096:
        return ()
    return tuple(value for value in array.values(32) if isinstance(value, str))


def _ltm_line(value: str) -> str:
    """A short value as it is, a document by its length and first line."""
    if "\n" not in value.strip() and len(value) <= 100:
        return printable(value.strip(), 100)
    first = next((line for line in value.splitlines() if line.strip()), "")
    return f"{len(value)} characters: {printable(first.strip(), 60)} …"


def _shown(value: str | None) -> str:
    return printable(value, 120) if value else "-"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _tokens(value: int | None) -> str:
    return "-" if value is None else f"{value} tokens"
