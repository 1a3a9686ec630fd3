"""Hyperparameters that llama.cpp doesn't refuse but dies of: checked before it sees the file.

The bounds are those of its assertions (`src/llama-model.cpp`, `src/llama-vocab.cpp` and `ggml/src/ggml-cpu/ops.cpp`);
what it answers with an error of its own is left to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from gguf_tools import keys
from gguf_tools.errors import Unloadable
from gguf_tools.printable import printable
from gguf_tools.records import GgufInfo
from gguf_tools.types import ValueType

__all__ = ["check_loadable"]

_MAX_LAYERS = 512
_MAX_EXPERTS = 1024
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_EPSILONS = ("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "attention.group_norm_epsilon")
_NEXTN_LAYERS = "nextn_predict_layers"
_EXPERTS_USED = "expert_used_count"
_EXPERT_GROUPS = "expert_group_count"
_GROUPS_USED = "expert_group_used_count"
_ROPE_SCALING = "rope.scaling.type"
_NO_VOCABULARY = ("no_vocab", "none")
_NO_BYTES = ("bert", "rwkv")  # vocabularies whose tokens can't be bytes
_BYTE = 6
_ONE_EXPERT_IS_NONE = ("hunyuan-dense", "hunyuan_vl")


def check_loadable(info: GgufInfo) -> None:
    """Raise Unloadable for a model whose hyperparameters or vocabulary would end the process that loads it."""
    for name, found, allowed in _problems(info):
        key = name if name.startswith("tokenizer.") else keys.arch_key(info.architecture, name)
        field = info.fields.get(key)
        raise Unloadable(
            info.path, f"'{printable(key, 80)}' {found}; {allowed}", offset=field.offset if field is not None else None
        )


def _problems(info: GgufInfo) -> Iterator[tuple[str, str, str]]:
    """Name of the property, what was found, what is allowed."""
    layers = info.arch_number(keys.ARCH_BLOCK_COUNT)
    if layers is not None and not 1 <= layers <= _MAX_LAYERS:
        yield keys.ARCH_BLOCK_COUNT, f"is {layers}", f"1 to {_MAX_LAYERS} layers are possible"
    if layers is not None and (ahead := info.arch_number(_NEXTN_LAYERS) or 0) > layers:
        yield _NEXTN_LAYERS, f"is {ahead}", f"the model has {layers} layers"
    yield from _expert_problems(info)
    for name in _EPSILONS:
        field = info.fields.get(keys.arch_key(info.architecture, name))
        if field is not None and isinstance(field.value, float) and not 0.0 <= field.value < math.inf:
            yield name, f"is {field.value:g}", "it must be a number of 0 or more"
    scaling = info.text(keys.arch_key(info.architecture, _ROPE_SCALING))
    if scaling is not None and scaling not in _ROPE_SCALINGS:
        yield _ROPE_SCALING, f"is '{printable(scaling, 40)}'", f"known are {', '.join(_ROPE_SCALINGS)}"
    yield from _vocabulary_problems(info)


def _expert_problems(info: GgufInfo) -> Iterator[tuple[str, str, str]]:
    experts = info.arch_number(keys.ARCH_EXPERT_COUNT) or 0
    if experts <= 1 and info.architecture in _ONE_EXPERT_IS_NONE:
        return
    used = _largest(info, _EXPERTS_USED)
    groups = info.arch_number(_EXPERT_GROUPS) or 0
    in_use = info.arch_number(_GROUPS_USED) or 0
    if not 0 <= experts <= _MAX_EXPERTS:
        yield keys.ARCH_EXPERT_COUNT, f"is {experts}", f"0 to {_MAX_EXPERTS} experts are possible"
    if not min(experts, 1) <= used <= experts:
        yield _EXPERTS_USED, f"is {used}", f"the model has {experts} experts"
    if groups and (groups >= experts or (groups > 1 and experts % groups)):
        yield _EXPERT_GROUPS, f"is {groups}", f"{experts} experts can't be divided so"
    if groups > 1 and not 0 < in_use < groups:
        yield _GROUPS_USED, f"is {in_use}", f"the model has {groups} groups of experts"


def _largest(info: GgufInfo, name: str) -> int:
    """The number under that name, or the largest where there is one for each layer."""
    values = info.array(keys.arch_key(info.architecture, name))
    if values is None:
        return info.arch_number(name) or 0
    return max((value for value in values.values(_MAX_LAYERS) if isinstance(value, int)), default=0)


def _vocabulary_problems(info: GgufInfo) -> Iterator[tuple[str, str, str]]:
    model = info.text(keys.TOKENIZER_MODEL)
    if model in _NO_VOCABULARY:
        yield keys.TOKENIZER_MODEL, f"is '{model}'", "without a vocabulary nothing can be read or written"
    types = info.array(keys.TOKENIZER_TYPES)
    if model in _NO_BYTES and types is not None and _BYTE in types.values():
        yield keys.TOKENIZER_TYPES, "has single bytes", f"a vocabulary of type '{model}' has none"
    tokens = info.array(keys.TOKENIZER_TOKENS)
    if tokens is None or tokens.type is not ValueType.STRING:
        return
    if len(set(tokens.strings())) == tokens.length:  # every model that is opened comes here: half the time of the loop
        return
    seen: set[bytes] = set()
    for number, text in enumerate(tokens.strings()):
        if text in seen and text:  # llama.cpp gives empty ones names of their own
            shown = printable(text.decode("utf-8", "replace"), 40)
            yield keys.TOKENIZER_TOKENS, f"has '{shown}' again as token {number}", "each token stands there once"
            return
        seen.add(text)
