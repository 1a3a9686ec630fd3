"""LoRA as PEFT saves it: `adapter_model.safetensors` with `adapter_config.json`, or one safetensors file alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_tools.architectures import ARCHITECTURES, Architecture, permute_rows
from gguf_tools.errors import BadLora, GgufError, UnsupportedLora, WrongBase
from gguf_tools.json_files import read_json_object
from gguf_tools.lora import Delta, Lora, Replacement, check_finite, listed
from gguf_tools.printable import printable
from gguf_tools.records import GgufInfo
from gguf_tools.safetensors import Safetensors, SafetensorsTensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

__all__ = ["CONFIG", "WEIGHTS", "read_peft"]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_MAX_CONFIG = 1 << 20
_MAX_NUMBER = 1e9

# `.default` is the adapter's name, which PEFT keeps in memory and older releases kept in files.
_PAIR = re.compile(r"(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<half>[AB])(?:\.[A-Za-z0-9_-]+?)??(?:\.weight)?")
_SAVED = re.compile(r"(?P<module>.+?)(?:\.modules_to_save(?:\.[A-Za-z0-9_-]+)?|\.base_layer)?\.(?P<part>weight|bias)")
_SHA256 = re.compile(r"[0-9a-f]{64}")

# Of a pattern: a module's name and nothing else; what repeats something; something repeated that repeats.
_NAME = re.compile(r"\^?(?:[A-Za-z0-9_-]|\\?\.)*\$?")
_REPEAT = re.compile(r"[*+{]|(?<!\()\?")
_NESTED = re.compile(r"[)*+?}][*+?{]")
_MAX_INVOLVED = 64

# Settings under which the file holds something else than pairs to add, and what each of them means.
_REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "use_dora": (bool, "is a DoRA, which also rescales each row"),
    "fan_in_fan_out": (bool, "was trained on transposed weights (fan_in_fan_out)"),
    "target_parameters": (bool, "changes parameters that are no linear layers (target_parameters)"),
    "trainable_token_indices": (bool, "changes single rows of the embeddings (trainable_token_indices)"),
    "lora_bias": (bool, "has biases inside its pairs (lora_bias)"),
    "layer_replication": (bool, "repeats layers of its base (layer_replication)"),
    "alora_invocation_tokens": (bool, "acts from its invocation tokens on only (alora_invocation_tokens)"),
    "init_lora_weights": (
        lambda value: isinstance(value, str) and value.startswith(("pissa", "olora", "corda", "loftq")),
        "was trained on a base that its initialisation had changed",
    ),
}


Patterns = Sequence[tuple[re.Pattern[str], float]]


@dataclass(frozen=True, slots=True)
class _Settings:
    """What decides the scale of each pair."""

    alpha: float
    rank: int | None
    square_root: bool
    ranks: Patterns
    alphas: Patterns

    def scale(self, path: Path, module: str, rank: int) -> float:
        """Alpha over the rank, or over its root; both by the patterns where one matches."""
        name = module.removeprefix("base_model.model.")
        alpha = _by_pattern(self.alphas, name, self.alpha)
        wanted = _by_pattern(self.ranks, name, self.rank if self.rank is not None else rank)
        if wanted != rank:
            raise BadLora(path, f"'{printable(name, 120)}' has rank {rank}, its settings say {wanted:g}")
        return alpha / math.sqrt(rank) if self.square_root else alpha / rank


def _by_pattern(patterns: Patterns, name: str, default: float) -> float:
    # As PEFT does: the first whose end matches.
    return next((value for pattern, value in patterns if pattern.fullmatch(name)), default)


def _patterns(path: Path, key: str, found: Any) -> Patterns:
    """The patterns of `rank_pattern` or `alpha_pattern`, compiled.

    A pattern is a regular expression in a stranger's file: names, and a few that are harmless, which all real ones are.
    """
    if not isinstance(found, dict):
        raise BadLora(path, f"'{key}' isn't a JSON object")
    compiled = []
    involved = 0
    for pattern, value in found.items():
        try:
            if not _NAME.fullmatch(pattern):
                involved += 1
                groups, repeats = pattern.count("("), len(_REPEAT.findall(pattern))
                if (
                    involved > _MAX_INVOLVED
                    or len(pattern) > 200
                    or groups > 2
                    or repeats > 2
                    or _NESTED.search(pattern)
                ):
                    raise re.error("too involved")
            expression = re.compile(rf"(?:.*\.)?(?:{pattern})")
        except (re.error, RecursionError, OverflowError) as error:
            raise BadLora(path, f"the pattern '{printable(pattern, 80)}' can't be used: {error}") from error
        compiled.append((expression, _number(path, f"the value of the pattern '{printable(pattern, 80)}'", value)))
    return compiled


def read_peft(
    path: Path, base: GgufInfo, *, settings: Mapping[str, Any] | None = None, config: Path | None = None
) -> Lora:
    """The LoRA in a safetensors file; its weights are read when they are asked for.

    Where alpha and the rest stand, the first of: `config`, `adapter_config.json` beside the file, the file's own
    metadata (`adapter_config` as JSON, or single values), `settings`.

    Args:
        path: the file, or a folder with `adapter_model.safetensors`.
        base: the base model's header.
        settings: PEFT's settings by name, as a last resort.
        config: an `adapter_config.json`.

    Raises:
        GgufError: it is damaged, of a kind that can't be merged, for an architecture that isn't known, or holds
            tensors without a place in the base; lists their names.
    """
    if path.is_dir():
        path = path / WEIGHTS
    architecture = ARCHITECTURES.get(base.architecture)
    if architecture is None:
        raise WrongBase(
            path,
            f"the base's architecture '{printable(base.architecture, 40)}' isn't known here; "
            f"known are {', '.join(ARCHITECTURES)}",
            remedy="convert the LoRA with llama.cpp's convert_lora_to_gguf.py and name the GGUF",
        )
    with Safetensors(path) as weights:
        found, origin = _settings(path, weights.metadata, settings or {}, config)
        tensors = dict(weights.tensors)
    return _Reader(path, base, architecture, tensors, found, origin).read()


def _settings(
    path: Path, metadata: Mapping[str, str], given: Mapping[str, Any], config: Path | None
) -> tuple[Mapping[str, Any], Path]:
    """PEFT's settings and the file that they stand in."""
    file = config or path.with_name(CONFIG)
    if config is not None or file.exists():
        return read_json_object(file, _MAX_CONFIG, BadLora), file
    if "adapter_config" in metadata:
        try:
            found = json.loads(metadata["adapter_config"])
        except (ValueError, RecursionError) as error:
            raise BadLora(path, f"its metadata 'adapter_config' isn't JSON: {printable(str(error), 80)}") from error
        if not isinstance(found, dict):
            raise BadLora(path, "its metadata 'adapter_config' isn't a JSON object")
        return found, path
    found = dict(given)
    for key, text in metadata.items():
        name = {"alpha": "lora_alpha", "rank": "r"}.get(key, key)
        if name in ("lora_alpha", "r", "use_rslora", "use_dora", "base_sha256", "rank_pattern", "alpha_pattern"):
            try:
                found[name] = json.loads(text.lower() if text in ("True", "False") else text)
            except (ValueError, RecursionError):
                found[name] = text
    return found, path


def _number(path: Path, what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _MAX_NUMBER:
        raise BadLora(path, f"{what} is {_shown(value)}, expected a number above 0")
    return float(value)


def _shown(value: Any) -> str:
    """A value as it may stand in the file; whole numbers may have thousands of digits."""
    try:
        return printable(json.dumps(value), 40)
    except ValueError:
        return "a number of too many digits"


class _Reader:
    """Sorts a file's tensors into pairs and replacements, and finds each one's place in the base."""

    def __init__(
        self,
        path: Path,
        base: GgufInfo,
        architecture: Architecture,
        tensors: Mapping[str, SafetensorsTensor],
        settings: Mapping[str, Any],
        origin: Path,
    ) -> None:
        self.path = path
        self.base = base
        self.architecture = architecture
        self.tensors = tensors
        self.raw = settings
        self.origin = origin

    def read(self) -> Lora:
        self.refuse_kinds()
        settings = self.settings()
        pairs, saved, unknown = self.sort()
        if unknown:
            raise BadLora(
                self.path,
                f"tensors without a place in a '{self.base.architecture}' model: {listed(sorted(unknown))}",
                remedy="use a LoRA for this kind of model, or convert it with llama.cpp's convert_lora_to_gguf.py",
            )
        deltas = {}
        for (module, embedding), halves in sorted(pairs.items()):
            if set(halves) != {"A", "B"}:
                missing = "B" if "A" in halves else "A"
                raise BadLora(self.path, f"'{printable(module, 120)}' has no lora_{missing}")
            delta = self.delta(module, embedding, halves["A"], halves["B"], settings)
            if delta.target in deltas:
                raise BadLora(
                    self.path, f"has two pairs for '{delta.target}', the second as '{printable(module, 120)}'"
                )
            deltas[delta.target] = delta
        replacements = {target: self.replacement(target, name) for target, name in sorted(saved.items())}
        if not deltas and not replacements:
            raise BadLora(self.path, "has no tensors")
        both = sorted(deltas.keys() & replacements.keys())
        if both:
            raise BadLora(self.path, f"both replaces and changes {listed(both)}")
        self.refuse_half_of_a_tie(deltas.keys() | replacements.keys())
        sha256 = self.raw.get("base_sha256")
        if sha256 is not None and (not isinstance(sha256, str) or not _SHA256.fullmatch(sha256)):
            raise BadLora(self.origin, "'base_sha256' isn't 64 lower-case hexadecimal digits")
        return Lora(self.path, deltas, replacements, sha256)

    def refuse_kinds(self) -> None:
        kind = self.raw.get("peft_type", "LORA")
        if kind != "LORA":
            raise UnsupportedLora(self.origin, f"peft_type is {printable(str(kind), 40)}, only LORA can be merged")
        for key, (refused, what) in _REFUSED.items():
            if refused(self.raw.get(key)):
                raise UnsupportedLora(self.origin, what)
        if any("lora_magnitude_vector" in name for name in self.tensors):
            raise UnsupportedLora(self.path, _REFUSED["use_dora"][1])

    def settings(self) -> _Settings:
        if self.raw.get("lora_alpha") is None:
            if not any(".lora_" in name for name in self.tensors):
                return _Settings(1.0, None, False, (), ())
            raise BadLora(
                self.path,
                "its alpha isn't known",
                remedy=f"put {CONFIG} beside it, or 'lora_alpha' under 'lora' in the bundle's config.json",
            )
        rank, square_root = self.raw.get("r"), self.raw.get("use_rslora")
        if rank is not None and (type(rank) is not int or rank < 1):
            raise BadLora(self.origin, f"'r' is {_shown(rank)}, expected a whole number above 0")
        if square_root not in (None, True, False):
            raise BadLora(self.origin, f"'use_rslora' is {_shown(square_root)}, expected true or false")
        return _Settings(
            alpha=_number(self.origin, "'lora_alpha'", self.raw["lora_alpha"]),
            rank=rank,
            square_root=bool(square_root),
            ranks=_patterns(self.origin, "rank_pattern", self.raw.get("rank_pattern") or {}),
            alphas=_patterns(self.origin, "alpha_pattern", self.raw.get("alpha_pattern") or {}),
        )

    def sort(self) -> tuple[dict[tuple[str, bool], dict[str, str]], dict[str, str], list[str]]:
        """Pairs by module and kind, names of whole tensors by target, and names without a place."""
        pairs: dict[tuple[str, bool], dict[str, str]] = {}
        saved: dict[str, str] = {}
        unknown = []
        for name in self.tensors:
            if ".lora_" in name:
                match = None if name.endswith(".bias") else _PAIR.fullmatch(name)
                module = match["module"] if match is not None else ""
                if match is None or self.architecture.module(module) is None:
                    unknown.append(name)
                    continue
                halves = pairs.setdefault((module, match["kind"] is not None), {})
                if match["half"] in halves:
                    raise BadLora(self.path, f"'{printable(module, 120)}' has two of lora_{match['half']}")
                halves[match["half"]] = name
                continue
            match = _SAVED.fullmatch(name)
            place = self.architecture.module(match["module"]) if match is not None else None
            if match is None or place is None:
                unknown.append(name)
                continue
            target = f"{place}.{match['part']}"
            if target in saved:
                raise BadLora(self.path, f"has '{target}' twice, as '{printable(name, 120)}' too")
            saved[target] = name
        return pairs, saved, unknown

    def refuse_half_of_a_tie(self, changed: set[str]) -> None:
        """Where the output is the token embeddings, PEFT changes one of the two only; a file holds one for both."""
        names = {tensor.name for tensor in self.base.tensors}
        if "output.weight" in names:
            return
        if "token_embd.weight" in changed and "output.weight" not in changed:
            raise UnsupportedLora(
                self.path,
                "changes the token embeddings, which this base uses as its output too; merging would change both",
            )

    def delta(self, module: str, embedding: bool, a: str, b: str, settings: _Settings) -> Delta:
        target = f"{self.architecture.module(module)}.weight"
        first, second = self.matrix(a), self.matrix(b)
        rank = first[0]
        if second[1] != rank or not rank:
            raise BadLora(self.path, f"the pair of '{printable(module, 120)}' has ranks that differ: {first}, {second}")
        scale = settings.scale(self.origin, module, rank)
        if embedding:
            # lora_embedding_A [rank, tokens], lora_embedding_B [width, rank]; the weight is [tokens, width].
            left, right = self.loaded(a), self.loaded(b)
            return Delta(target, first[1], second[0], rank, scale, lambda: left().T, lambda: right().T)
        heads = self.heads(target, second[0])
        left = self.loaded(b)
        if heads is not None:
            return Delta(target, second[0], first[1], rank, scale, _permuted(left, heads), self.loaded(a))
        return Delta(target, second[0], first[1], rank, scale, left, self.loaded(a))

    def replacement(self, target: str, name: str) -> Replacement:
        shape = self.tensors[name].shape
        heads = self.heads(target, shape[0] if shape else 0)
        load = self.loaded(name)
        if heads is not None:
            load = _permuted(load, heads)
        if self.architecture.is_shifted(target):
            load = _shifted(load, self.architecture.norm_shift)
        return Replacement(target, shape, load)

    def heads(self, target: str, rows: int) -> int | None:
        heads = self.architecture.head_count(self.base, target)
        if heads is not None and (heads < 1 or rows % (2 * heads)):
            raise WrongBase(self.path, f"'{target}' has {rows} rows, the base has {heads} heads")
        return heads

    def matrix(self, name: str) -> tuple[int, int]:
        tensor = self.tensors[name]
        if len(tensor.shape) != 2:
            raise BadLora(self.path, f"tensor '{printable(name, 120)}' has shape {list(tensor.shape)}, not a matrix")
        return tensor.shape[0], tensor.shape[1]

    def loaded(self, name: str) -> Callable[[], Floats]:
        """Reads one tensor when it is asked for; the file is open for as long as that takes."""
        tensor = self.tensors[name]
        if tensor.dtype not in ("F32", "F16", "BF16", "F64"):
            raise BadLora(self.path, f"tensor '{printable(name, 120)}' is {tensor.dtype}, expected floats")

        def load() -> Floats:
            import numpy as np

            with Safetensors(self.path) as weights:
                if weights.tensors.get(name) != tensor:
                    raise GgufError(self.path, "changed while it was being read", remedy="start again")
                with np.errstate(over="ignore"):
                    values: Floats = np.array(weights.array(name), np.float32)
            check_finite(self.path, name, values)
            return values

        return load


def _permuted(load: Callable[[], Floats], heads: int) -> Callable[[], Floats]:
    return lambda: permute_rows(load(), heads)


def _shifted(load: Callable[[], Floats], shift: float) -> Callable[[], Floats]:
    def shifted() -> Floats:
        values = load()
        values += shift
        return values

    return shifted
