"""Converting BERT embedding models (safetensors and tokenizer files) to GGUF.

Tensor names, types, metadata and the form of the vocabulary are those of llama.cpp's own converter
(`conversion/bert.py`, `conversion/base.py` and `gguf-py/gguf/vocab.py` in ggml-org/llama.cpp), which needs torch and
transformers; this one needs numpy and the `gguf` package. The same input gives the same bytes.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gguf_tools import keys
from gguf_tools.errors import GgufError
from gguf_tools.files import keep_permissions, remove, sync_folder, temporary_sibling
from gguf_tools.json_files import read_json, read_json_object
from gguf_tools.printable import printable
from gguf_tools.safetensors import Safetensors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["CONVERTER_VERSION", "WEIGHTS", "BadModel", "BertType", "convert_bert"]

CONVERTER_VERSION = 1
"""Raised when the same input would give other bytes; part of the name of cached conversions."""

BertType = Literal["F16", "Q8_0"]

WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_TOKENIZER = "tokenizer.json"
_MODULES = "modules.json"
_MAX_JSON = 64 << 20
_MAX_LAYERS = 256
_MAX_WIDTH = 1 << 16
_MAX_VOCABULARY = 1 << 22

_PHANTOM_SPACE = "\u2581"
_CONTINUED = "##"
_POOLING = {"mean": 1, "cls": 2, "lasttoken": 3}  # numbers of llama.cpp's llama_pooling_type
_FILE_TYPES = {"F16": 1, "Q8_0": 7}  # numbers of llama.h's llama_ftype

# Names in the safetensors file, names in GGUF. The pooler and the position ids have no place in an embedder.
_EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# Always in float32, whatever the type of the rest.
_FULL = ("token_types.weight", "position_embd.weight")


class BadModel(GgufError):
    """A model folder that lacks a file, or whose files don't describe a BERT embedding model."""

    code = "bert-model"
    remedy = f"name the folder of a BERT embedding model with {WEIGHTS}, {_CONFIG} and {_TOKENIZER}"


@dataclass(frozen=True, slots=True)
class _Shape:
    """What `config.json` says of the model's size."""

    layers: int
    width: int
    heads: int
    inner: int
    positions: int
    types: int
    vocabulary: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """The WordPiece vocabulary as llama.cpp wants it: `▁` begins a word, and what goes on with one has no `##`."""

    tokens: list[str]
    types: list[int]
    special: dict[str, int]
    lowercase: bool
    strip_accents: bool | None


def convert_bert(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    type_: BertType = "F16",
    *,
    name: str = "",
    licence: str = "",
) -> None:
    """Write the GGUF of a BERT embedding model. `out` is replaced once everything is written and on disk.

    Args:
        folder: holds `model.safetensors`, `config.json`, `tokenizer.json` and, for the pooling, `modules.json`.
        out: the GGUF file; its folder must exist.
        type_: type of the matrices; vectors, norms, positions and token types stay float32.
        name: `general.name`; empty: the folder's name.
        licence: `general.license`, an SPDX identifier; empty: none.

    Raises:
        GgufError: a file is missing, damaged or not what a BERT embedding model has.
        OSError: `out` can't be written.
    """
    source = Path(folder)
    config = _json(source / _CONFIG)
    shape = _shape(source / _CONFIG, config)
    vocabulary = _vocabulary(source / _TOKENIZER, _json(source / _TOKENIZER), shape.vocabulary)
    pooling = _pooling(source)
    target = Path(out)
    with Safetensors(source / WEIGHTS) as weights:
        wanted = _wanted(shape)
        names = _found(weights, wanted)
        _check_rest(weights, set(names.values()))
        temporary = temporary_sibling(target)
        try:
            writer = _describe(temporary, shape, vocabulary, pooling, type_, name or source.resolve().name, licence)
            _write(writer, weights, names, wanted, type_)
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            keep_permissions(temporary)
            temporary.replace(target)
        except BaseException:
            remove(temporary)
            raise
        sync_folder(target.parent)


# What the folder holds.


def _json(path: Path) -> dict[str, Any]:
    return read_json_object(path, _MAX_JSON, BadModel)


def _shape(path: Path, config: dict[str, Any]) -> _Shape:
    if config.get("model_type") != "bert":
        raise BadModel(path, f"model_type is '{printable(str(config.get('model_type')), 40)}', only 'bert' is read")
    if config.get("hidden_act", "gelu") != "gelu" or config.get("position_embedding_type", "absolute") != "absolute":
        raise BadModel(path, "only BERT with hidden_act 'gelu' and absolute positions is read")

    def number(key: str, limit: int, default: int | None = None) -> int:
        value = config.get(key, default)
        if type(value) is not int or not 1 <= value <= limit:
            raise BadModel(path, f"{key} is {printable(str(value), 40)}, expected a whole number from 1 to {limit}")
        return value

    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise BadModel(path, f"layer_norm_eps is {printable(str(epsilon), 40)}, expected a number between 0 and 1")
    shape = _Shape(
        layers=number("num_hidden_layers", _MAX_LAYERS),
        width=number("hidden_size", _MAX_WIDTH),
        heads=number("num_attention_heads", _MAX_WIDTH),
        inner=number("intermediate_size", 4 * _MAX_WIDTH),
        positions=number("max_position_embeddings", 1 << 20),
        types=number("type_vocab_size", 1 << 16, 1),
        vocabulary=number("vocab_size", _MAX_VOCABULARY),
        epsilon=epsilon,
    )
    if shape.width % shape.heads:
        raise BadModel(path, f"hidden_size {shape.width} isn't a multiple of num_attention_heads {shape.heads}")
    return shape


def _vocabulary(path: Path, tokenizer: dict[str, Any], size: int) -> _Vocabulary:
    model = tokenizer.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise BadModel(path, "has no WordPiece vocabulary (model.vocab)")
    if model.get("type", "WordPiece") != "WordPiece" or model.get("continuing_subword_prefix", _CONTINUED) != "##":
        raise BadModel(
            path, f"its model is '{printable(str(model.get('type')), 40)}', only WordPiece with '##' is read"
        )
    pieces: list[str | None] = [None] * size
    for text, index in model["vocab"].items():
        if type(index) is not int or not 0 <= index < size or pieces[index] is not None or not text:
            raise BadModel(
                path,
                f"token '{printable(text, 40)}' has id {printable(str(index), 40)}; ids are unique, 0 to {size - 1}",
            )
        pieces[index] = text
    control = set()
    for entry in tokenizer.get("added_tokens") or ():
        index = entry.get("id") if isinstance(entry, dict) else None
        if type(index) is not int or not 0 <= index < size or not isinstance(entry.get("content"), str):
            raise BadModel(path, "an entry of added_tokens has no id and content of the vocabulary")
        pieces[index] = entry["content"]
        if entry.get("special"):
            control.add(index)
    tokens, types = [], []
    for index, piece in enumerate(pieces):
        if piece is None:
            tokens.append(f"[PAD{index}]")
            types.append(5)  # unused
        elif index in control:
            tokens.append(piece)
            types.append(3)  # control
        else:
            tokens.append(piece[2:] if piece.startswith(_CONTINUED) else _PHANTOM_SPACE + piece)
            types.append(1)  # normal
    known = {piece: index for index, piece in enumerate(pieces)}
    special = {}
    for role, text in (("unk", "[UNK]"), ("sep", "[SEP]"), ("pad", "[PAD]"), ("cls", "[CLS]"), ("mask", "[MASK]")):
        if text in known:
            special[role] = known[text]
        elif role != "mask":
            raise BadModel(path, f"its vocabulary has no {text}")
    lowercase, strip = _normaliser(path, tokenizer.get("normalizer"))
    return _Vocabulary(tokens, types, special, lowercase, strip)


def _normaliser(path: Path, entry: Any) -> tuple[bool, bool | None]:
    """Whether text is put into lower case, and whether accents are taken off (None: as the lower case)."""
    if not isinstance(entry, dict) or entry.get("type") != "BertNormalizer":
        raise BadModel(path, "its normalizer isn't BertNormalizer")
    lowercase, strip = entry.get("lowercase", True), entry.get("strip_accents")
    if not isinstance(lowercase, bool) or not (strip is None or isinstance(strip, bool)):
        raise BadModel(path, "its normalizer's lowercase and strip_accents aren't truth values")
    return lowercase, strip


def _pooling(folder: Path) -> int | None:
    """The number of the pooling that the sentence-transformers files name; None where there are none."""
    path = folder / _MODULES
    if not path.is_file():
        return None
    modules = read_json(path, _MAX_JSON, BadModel)
    for module in modules if isinstance(modules, list) else ():
        if not isinstance(module, dict) or not str(module.get("type", "")).endswith("Pooling"):
            continue
        sub = module.get("path")
        # The folder is named by a file: it must be one right here.
        if not isinstance(sub, str) or sub in ("", ".", "..") or "/" in sub or "\\" in sub:
            raise BadModel(path, f"the pooling's path is '{printable(str(sub), 80)}', expected a folder's name")
        entry = _json(folder / sub / _CONFIG)
        for mode, flag in (("mean", "mean_tokens"), ("cls", "cls_token"), ("lasttoken", "lasttoken")):
            if entry.get(f"pooling_mode_{flag}") is True or entry.get("pooling_mode") == mode:
                return _POOLING[mode]
        raise BadModel(folder / sub / _CONFIG, f"names no pooling of {', '.join(_POOLING)}")
    return None


# Tensors.


def _wanted(shape: _Shape) -> dict[str, tuple[str, tuple[int, ...]]]:
    """GGUF name to name in the safetensors file and shape, in the order of the GGUF file."""
    width, inner = shape.width, shape.inner
    sizes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (shape.vocabulary, width),
        "token_types.weight": (shape.types, width),
        "position_embd.weight": (shape.positions, width),
    }
    wanted = {new: (old, sizes.get(new, (width,))) for old, new in _EMBEDDINGS.items()}
    for layer in range(shape.layers):
        for old, new in _LAYER.items():
            out = inner if new == "ffn_up" else width
            rows = (out,) if "norm" in new else (out, inner if new == "ffn_down" else width)
            wanted[f"blk.{layer}.{new}.weight"] = (f"encoder.layer.{layer}.{old}.weight", rows)
            wanted[f"blk.{layer}.{new}.bias"] = (f"encoder.layer.{layer}.{old}.bias", (out,))
    return wanted


def _found(weights: Safetensors, wanted: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, str]:
    """GGUF name to the name that the file really has: some files put `bert.` in front."""
    found = {}
    for new, (old, shape) in wanted.items():
        name = old if old in weights.tensors else f"bert.{old}"
        tensor = weights.tensors.get(name)
        if tensor is None:
            raise BadModel(weights.path, f"has no tensor '{printable(old, 100)}'")
        if tensor.shape != shape:
            raise BadModel(
                weights.path, f"tensor '{name}' has shape {list(tensor.shape)}, {_CONFIG} asks for {list(shape)}"
            )
        if tensor.dtype not in ("F32", "F16", "BF16", "F64"):
            raise BadModel(weights.path, f"tensor '{name}' is {tensor.dtype}, expected F32, F16, BF16 or F64")
        found[new] = name
    return found


def _check_rest(weights: Safetensors, used: set[str]) -> None:
    """Refuse what would be lost: a tensor that neither is used nor belongs to a head that embedding doesn't need."""
    for name in weights.tensors:
        bare = name.removeprefix("bert.")
        if name not in used and not bare.startswith(("embeddings.position_ids", "pooler.", "cls.")):
            raise BadModel(weights.path, f"tensor '{printable(name, 100)}' has no place in a BERT embedder")


def _describe(
    path: Path, shape: _Shape, vocabulary: _Vocabulary, pooling: int | None, type_: str, name: str, licence: str
) -> Any:
    """A writer that holds all metadata."""
    import gguf

    writer = gguf.GGUFWriter(path, "bert")
    writer.add_type("model")
    writer.add_name(name)
    if licence:
        writer.add_license(licence)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.positions)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(shape.epsilon)
    writer.add_file_type(_FILE_TYPES[type_])
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_uint32(keys.arch_key("bert", keys.ARCH_POOLING_TYPE), pooling)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_token_type_count(shape.types)
    writer.add_tokenizer_model("bert")
    # Names a way of splitting for BPE; llama.cpp doesn't look at it for WordPiece, its converter writes these.
    writer.add_tokenizer_pre("bert-bge" if vocabulary.lowercase else "default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    special = vocabulary.special
    writer.add_bos_token_id(special["cls"])  # there is no key for [CLS]: what begins a text is the "bos"
    writer.add_eos_token_id(special["sep"])
    writer.add_unk_token_id(special["unk"])
    writer.add_sep_token_id(special["sep"])
    writer.add_pad_token_id(special["pad"])
    if "mask" in special:
        writer.add_mask_token_id(special["mask"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    # By their names: older releases of the gguf package have no method for them.
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", vocabulary.lowercase)
    if vocabulary.strip_accents is not None:
        writer.add_bool("tokenizer.ggml.normalizer.strip_accents", vocabulary.strip_accents)
    return writer


def _write(
    writer: Any,
    weights: Safetensors,
    names: dict[str, str],
    wanted: dict[str, tuple[str, tuple[int, ...]]],
    type_: str,
) -> None:
    import gguf
    import numpy as np

    types = {}
    for new, (_, shape) in wanted.items():
        kind = "F32" if len(shape) < 2 or new in _FULL else type_
        if kind == "Q8_0" and shape[-1] % 32:
            kind = "F16"  # as llama.cpp's converter: such rows don't fill blocks
        types[new] = kind
        raw = gguf.GGMLQuantizationType[kind]
        bits = {"F32": 32, "F16": 16, "Q8_0": 8.5}[kind]
        nbytes = int(math.prod(shape) * bits) // 8
        given = (*shape[:-1], shape[-1] // 32 * 34) if kind == "Q8_0" else shape
        dtype = np.dtype({"F32": "f4", "F16": "f2", "Q8_0": "u1"}[kind])
        writer.add_tensor_info(new, given, dtype, nbytes, raw_dtype=raw)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for new in wanted:
            for_file = _values(weights, names[new], types[new])
            writer.write_tensor_data(for_file)
    finally:
        writer.close()


def _values(weights: Safetensors, name: str, kind: str) -> npt.NDArray[Any]:
    """A tensor in the type of the file."""
    import gguf
    import numpy as np

    with np.errstate(over="ignore"):
        values = np.asarray(weights.array(name)).astype(np.float32)
        if not np.isfinite(values).all():
            raise BadModel(weights.path, f"tensor '{name}' has numbers that are infinite or none in float32")
        if kind == "F16":
            values = values.astype(np.float16)
            if not np.isfinite(values).all():
                raise BadModel(weights.path, f"tensor '{name}' has numbers beyond float16's 65504; convert to Q8_0")
            return values
    if kind == "Q8_0":
        quantised: npt.NDArray[np.uint8] = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        return quantised
    return values
