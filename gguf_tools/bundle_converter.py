"""From a bundle folder and a base model to one GGUF and its sidecar folder."""

from __future__ import annotations

import math
import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf_tools import keys
from gguf_tools.bundle_folder import CONFIG, BundleFolder, Check, read_bundle_folder
from gguf_tools.bundle_reader import with_defaults
from gguf_tools.bundle_writer import BundleWriter
from gguf_tools.channels import check_channel, write_channel
from gguf_tools.converter import Converter, Plan, Progress, Written
from gguf_tools.entries import Entry, entries_of, number_entry
from gguf_tools.errors import BadSource, GgufError, UnsupportedType, WrongBase
from gguf_tools.kind import kind
from gguf_tools.lora import Lora, check_shapes, check_weights
from gguf_tools.ltm import ltm_entries
from gguf_tools.merge import MergedTensors
from gguf_tools.printable import byte_count, printable, printable_path
from gguf_tools.quants import can_write, type_named, writable_types
from gguf_tools.read_lora import read_lora
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufInfo
from gguf_tools.sidecar import file_sha256, sidecar_folder
from gguf_tools.types import TensorType, ValueType
from gguf_tools.writer import Bytes

__all__ = ["BundleConverter", "MemoryImport", "Options", "facts_of", "open_base"]

MemoryImport = Callable[[Path, Path], int]
"""Given a folder with a FAISS memory and a file to write, writes a scene store; returns its number of scenes.

It raises `GgufError` where the folder can't be taken, and writes nothing where the folder has no texts.
"""

# Bits a weight of a tensor that a LoRA is merged into; with fewer, most of its changes are smaller than a step.
_ENOUGH_BITS = 6.0
# What `general.file_type` says of a file whose matrices are all of one type (numbers of llama.h's llama_ftype).
_FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 11, "Q4_K": 14,
    "Q5_K": 16, "Q6_K": 18, "IQ3_XXS": 23, "IQ4_NL": 25, "IQ3_S": 26, "IQ4_XS": 30, "BF16": 32, "TQ1_0": 36,
    "TQ2_0": 37, "MXFP4": 38,
}  # fmt: skip
_QUANTIZATION_VERSION = 2

# Sidecar files of a memory: the store of record, and the records beside a FAISS index.
_STORE_NAME = "scenes.sqlite"
_STORE = f"memory/{_STORE_NAME}"
_RECORDS = "memory/meta.json"

# Files that people name where they mean the folder.
_OF_A_MODEL_FOLDER = (".safetensors", ".bin", ".json")

# Names in a Hugging Face config.json, names under the architecture in GGUF.
_FACTS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": keys.ARCH_BLOCK_COUNT,
    "num_attention_heads": keys.ARCH_HEAD_COUNT,
    "num_key_value_heads": keys.ARCH_HEAD_COUNT_KV,
    "intermediate_size": "feed_forward_length",
}


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert.

    Attributes:
        outtype: `same`, or the type of all matrices, such as `Q8_0`.
        lora_scale: factor on the LoRA's low-rank changes.
        force: replace what is there.
    """

    outtype: str = "same"
    lora_scale: float = 1.0
    force: bool = False


def open_base(path: Path) -> GgufInfo:
    """The header of a model that a bundle can be made of.

    Raises:
        GgufError: it is no GGUF model; for a Hugging Face folder the message has the command that makes one.
    """
    folder = path.parent if path.suffix.lower() in _OF_A_MODEL_FOLDER and path.is_file() else path
    if folder.is_dir() and (folder / CONFIG).is_file():
        out = f"{folder.resolve().name}.gguf"
        command = ["python", "convert_hf_to_gguf.py", printable_path(folder), "--outfile", out, "--outtype", "bf16"]
        raise BadSource(
            path,
            "is a Hugging Face model folder" if folder == path else "belongs to a Hugging Face model folder",
            remedy=f"make a GGUF of it with llama.cpp: {printable(shlex.join(command), 4096)}",
        )
    if path.is_dir():
        raise BadSource(path, "is a folder", remedy="name the base model's GGUF file")
    info = read_gguf(path)
    found = kind(info)
    if (info.number(keys.SPLIT_COUNT) or 0) > 1:
        raise BadSource(
            path, "is one part of a split model", remedy="join them with llama.cpp's llama-gguf-split --merge"
        )
    if found.name != "chat":
        raise BadSource(path, f"is no chat model: {printable(found.reason)}", remedy="name the base model's GGUF file")
    return info


def facts_of(info: GgufInfo) -> dict[str, str | int]:
    """What a bundle folder's `config.json` says of its base."""
    found: dict[str, str | int] = {"model_type": info.architecture}
    found |= {ours: number for ours, theirs in _FACTS.items() if (number := info.arch_number(theirs)) is not None}
    return found


class BundleConverter(Converter):
    """Converts one bundle folder.

    Attributes (after `run`):
        folder: what was read.
        base: the base's header.
        lora: what was merged.
        merged: the tensors.
        scenes: how many were made of a FAISS memory; None if there was none to take.
    """

    def __init__(
        self,
        folder: Path,
        base: Path,
        target: Path,
        options: Options | None = None,
        *,
        check: Check | None = None,
        defaults: Mapping[str, str] | None = None,
        hasher: Callable[[Path], str] | None = None,
        memory: MemoryImport | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Set up a conversion; nothing is read yet.

        Args:
            folder: the bundle folder.
            base: the base model's GGUF; may be a bundle itself, whose own `ltm.*` documents are left out.
            target: the GGUF to write.
            options: how.
            check: as for `read_bundle_folder`.
            defaults: documents, by the names that they would have in the folder, that stand in for those it lacks; of
                scene templates only if it has none at all.
            hasher: gives the SHA-256 of a file, for callers that remember them.
            memory: makes the store of record of a FAISS memory that has none; None: it is carried along as it is.
            progress: told of progress.
        """
        self.options = options or Options()
        super().__init__(target, force=self.options.force, progress=progress)
        self._folder_path = folder
        self._base_path = base
        self._check = check
        self._defaults = defaults or {}
        self._hasher = hasher or file_sha256
        self._memory = memory
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self.folder: BundleFolder | None = None
        self.base: GgufInfo | None = None
        self.lora: Lora | None = None
        self.merged: MergedTensors | None = None
        self.scenes: int | None = None
        self._base_sha256 = ""

    def check(self) -> list[str]:
        problems: list[str] = []
        outtype = self._outtype(problems)
        if not math.isfinite(self.options.lora_scale) or abs(self.options.lora_scale) > 100:
            problems.append(f"--lora-scale {self.options.lora_scale:g}: a number from -100 to 100")
        try:
            self.folder, found = read_bundle_folder(self._folder_path, self._check)
            problems += found
        except GgufError as error:
            problems.append(str(error))
        try:
            self.base = open_base(self._base_path)
            ltm_entries(self.base)
            if self.target.exists() and self.target.samefile(self._base_path):
                problems.append(f"{printable_path(self.target)}: is the base itself; choose another name")
        except GgufError as error:
            problems.append(str(error))
        if self.folder is None or self.base is None:
            return problems
        problems += self._facts(self.folder, self.base)
        problems += self._read_lora(self.folder, self.base)
        for channel in self.folder.channels:
            problems += check_channel(channel, self.base)
        problems += self._embedder(self.folder)
        problems += self._import_memory(self.folder)
        if not problems:
            try:
                self.merged = MergedTensors(self.base, self.lora, outtype=outtype, scale=self.options.lora_scale)
            except GgufError as error:
                problems.append(str(error))
        return problems

    def add_files(self, writer: BundleWriter) -> None:
        assert self.folder is not None and self.base is not None and self.merged is not None
        for channel in self.folder.channels:
            file = self._scratch_file(f"{channel.name}.gguf")
            if write_channel(channel, self.base, self.merged, file):
                writer.add_file(f"channels/{channel.name}.gguf", file)
        for path, source in self.folder.files.items():
            writer.add_file(path, source)
        if self.scenes:
            writer.add_file(_STORE, self._scratch_file(_STORE_NAME))

    def plan(self) -> Plan:
        assert self.folder is not None and self.base is not None and self.merged is not None
        old = ltm_entries(self.base)
        ltm = {key: value for key, value in old.items() if not keys.is_known_ltm_key(key)}
        ltm.update(with_defaults(self.folder.entries, self._defaults))
        if old and self.lora is None:
            # A bundle as its own base: what it was made of stays what it was.
            kept = (keys.LTM_BASE_SHA256, keys.LTM_BASE_NAME, keys.LTM_LORA_SHA256, keys.LTM_LORA_SCALE)
            ltm.update({key: old[key] for key in kept if key in old})
        else:
            ltm[keys.LTM_BASE_SHA256] = self._base_hash()
            if name := self.base.text(keys.GENERAL_NAME):
                ltm[keys.LTM_BASE_NAME] = name
            if self.lora is not None:
                ltm[keys.LTM_LORA_SHA256] = self._hasher(self.lora.path)
                ltm[keys.LTM_LORA_SCALE] = repr(float(self.options.lora_scale))
        return Plan(tuple(self._entries(self.base, old)), ltm, self.merged.specs)

    def chunks(self, name: str) -> Iterable[Bytes]:
        assert self.merged is not None
        return self.merged.chunks(name)

    def close(self) -> None:
        if self.merged is not None:
            self.merged.close()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def summary(self, written: Written) -> list[tuple[str, str]]:
        """Label and value of every line that tells what was done; values are safe to print."""
        assert self.folder is not None and self.base is not None and self.merged is not None
        changed = len(self.merged.changed)
        rate = written.nbytes / max(written.seconds, 1e-9)
        rows = [
            ("bundle", printable(self.folder.name)),
            ("file", f"{printable_path(written.target)}, {byte_count(written.nbytes)}"),
            ("base", f"{printable(self.base.text(keys.GENERAL_NAME) or '-')} ({self.base.architecture})"),
            ("tensors", f"{len(self.merged.specs)}, of which {changed} were changed and the rest copied"),
        ]
        if self.lora is not None:
            scale = f"{self.options.lora_scale:g}"
            rows.append(("LoRA", f"{printable_path(self.lora.path)}, {len(self.lora.targets)} tensors, scale {scale}"))
            if coarse := self.coarse_types():
                rows.append(("note", f"{', '.join(coarse)} may round much of a LoRA away; --outtype Q8_0 keeps it"))
        own = sum(key.startswith(keys.LTM_SCENE_TEMPLATE_PREFIX) for key in self.folder.entries)
        rows.append(("templates", f"{own} of its own" if own else "the packaged ones"))
        if self.folder.channels:
            rows.append(("adapters", ", ".join(channel.name for channel in self.folder.channels)))
        if memory := self._about_memory(self.folder):
            rows.append(("memory", memory))
        if written.sidecar_sha256 is not None:
            rows.append(("sidecar folder", printable_path(sidecar_folder(written.target))))
        if self.folder.ignored:
            rows.append(("left out", printable(", ".join(self.folder.ignored))))
        rows.append(("time", f"{written.seconds:.1f} s, {byte_count(int(rate))}/s"))
        return rows

    def coarse_types(self, bits: float = _ENOUGH_BITS) -> list[str]:
        """Names, sorted, of the types with fewer bits a weight that a LoRA was merged into; for after `run`."""
        assert self.merged is not None
        targets = self.merged.changed & (self.lora.targets if self.lora is not None else frozenset())
        types = {spec.type for spec in self.merged.specs if spec.name in targets}
        return sorted(one.name for one in types if one.bits_per_weight < bits)

    def _outtype(self, problems: list[str]) -> TensorType | None:
        name = self.options.outtype
        if name.lower() == "same":
            return None
        found = type_named(name)
        if found is None or found.name not in _FILE_TYPES or not can_write(found):
            known = ", ".join(n for n in writable_types() if n in _FILE_TYPES)
            problems.append(f"--outtype {printable(name, 40)}: can't be written here; same, {known}")
            return None
        return found

    def _base_hash(self) -> str:
        if not self._base_sha256:
            size = self._base_path.stat().st_size
            self.tell("hashing the base", 0, size)
            self._base_sha256 = self._hasher(self._base_path)
            self.tell("hashing the base", size, size)
        return self._base_sha256

    def _facts(self, folder: BundleFolder, base: GgufInfo) -> list[str]:
        """Where config.json describes another model than the base is."""
        problems = []
        for ours, theirs in _FACTS.items():
            wanted, found = folder.config.get(ours), base.arch_number(theirs)
            if type(wanted) is int and found is not None and wanted != found:
                shown = str(wanted) if abs(wanted) < 1 << 63 else "a number of more than 64 bits"
                problems.append(f"{CONFIG}: {ours} is {shown}, the base has {found}; name the base that it describes")
        sha256 = folder.config.get("base_sha256")
        if sha256 is not None and sha256 != self._base_hash():
            problems.append(
                f"{CONFIG}: base_sha256 is {printable(str(sha256), 16)}, the base's is {self._base_hash()[:15]}…; "
                "name the base that the folder was made for"
            )
        return problems

    def _read_lora(self, folder: BundleFolder, base: GgufInfo) -> list[str]:
        if folder.lora is None:
            return []
        try:
            lora = read_lora(folder.lora, base, folder.config.get("lora"))
            if lora.base_sha256 is not None and lora.base_sha256 != self._base_hash():
                raise WrongBase(
                    lora.path, f"was made for the base {lora.base_sha256[:15]}…, this one is {self._base_hash()[:15]}…"
                )
            check_shapes(lora, base)
            self.lora = lora
            return check_weights(lora)
        except GgufError as error:
            return [str(error)]

    def _embedder(self, folder: BundleFolder) -> list[str]:
        path = folder.files.get("embedder.gguf")
        if path is None:
            return []
        try:
            found = kind(read_gguf(path))
        except GgufError as error:
            return [str(error)]
        return [] if found.name == "embedding" else [f"{path.name}: is no embedding model ({printable(found.reason)})"]

    def _import_memory(self, folder: BundleFolder) -> list[str]:
        """Make the store of record of a FAISS memory that comes without one."""
        source = folder.files.get(_RECORDS)
        if self._memory is None or source is None or _STORE in folder.files:
            return []
        try:
            self.scenes = self._memory(source.parent, self._scratch_file(_STORE_NAME))
        except GgufError as error:
            return [str(error)]
        return []

    def _about_memory(self, folder: BundleFolder) -> str:
        if self.scenes:
            return f"{self.scenes} scenes, imported from {printable(folder.files[_RECORDS].parent.name)}/"
        if _STORE in folder.files:
            return "the folder's scene store"
        if any(path.startswith("memory/") for path in folder.files):
            why = "its records have no texts" if self.scenes == 0 else "ltm-edge convert makes a scene store of it"
            return f"carried along as it is; {why}"
        return ""

    def _scratch_file(self, name: str) -> Path:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="ltm-convert-")
        return Path(self._scratch.name) / name

    def _entries(self, base: GgufInfo, old: Iterable[str]) -> list[Entry]:
        """The base's metadata; another type of the matrices is the one thing that changes it."""
        found = entries_of(base, old)
        if self.options.outtype.lower() == "same":
            return found
        kind = type_named(self.options.outtype)
        if kind is None:
            raise UnsupportedType(self.target, f"no type '{printable(self.options.outtype, 40)}'")
        fresh = {keys.GENERAL_FILE_TYPE: _FILE_TYPES[kind.name]}
        if kind.block > 1:
            fresh[keys.GENERAL_QUANTIZATION_VERSION] = _QUANTIZATION_VERSION
        new = {key: number_entry(key, ValueType.UINT32, number) for key, number in fresh.items()}
        return [new.pop(entry.key, entry) for entry in found] + list(new.values())
