"""What a GGUF file is good for, told by its header alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gguf_tools import keys
from gguf_tools.records import GgufInfo

__all__ = ["Kind", "KindName", "kind"]

KindName = Literal["chat", "vocabulary", "embedding", "adapter", "projector", "other"]

# Architectures of llama.cpp that only ever embed.
_EMBEDDING = {
    "bert",
    "eurobert",
    "gemma-embedding",
    "jina-bert-v2",
    "jina-bert-v3",
    "llama-embed",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "t5encoder",
}
# Architectures of llama.cpp that have a vocabulary and weights, yet don't write text from left to right.
_OTHER = {
    "dflash": "a helper for speculative decoding",
    "dream": "a diffusion language model",
    "eagle3": "a helper for speculative decoding",
    "gemma4-assistant": "a helper for speculative decoding",
    "llada": "a diffusion language model",
    "llada-moe": "a diffusion language model",
    "pockettts": "a speech model",
    "qwen3tts": "a speech model",
    "rnd1": "a diffusion language model",
    "t5": "an encoder-decoder model",
    "wavtokenizer-dec": "an audio decoder",
}
_POOLING_NAMES = {1: "mean", 2: "first token", 3: "last token", 4: "rank"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is good for.

    Attributes:
        name: "chat" for a model that can answer, else what it is instead.
        reason: one clause that says by what this was seen.
    """

    name: KindName
    reason: str


def kind(info: GgufInfo) -> Kind:
    """What the file is good for. Architectures that are unknown here count as chat models if they look like one."""
    architecture = info.architecture
    special = _by_declaration(info, architecture)
    if special is not None:
        return special
    if not info.tensors:
        if info.array(keys.TOKENIZER_TOKENS) is not None:
            return Kind("vocabulary", "it has a vocabulary and no weights")
        return Kind("other", "it has no weights")
    part = info.number(keys.SPLIT_NO)
    if part:
        count = info.number(keys.SPLIT_COUNT) or 0
        return Kind("other", f"it is part {part + 1} of {count} of a split model; part 1 is the one to name")
    if not architecture:
        return Kind("other", f"it has no '{keys.GENERAL_ARCHITECTURE}'")
    if architecture in _OTHER:
        return Kind("other", f"'{architecture}' is {_OTHER[architecture]}")
    embedding = _embedding_reason(info, architecture)
    if embedding is not None:
        return Kind("embedding", embedding)
    if info.array(keys.TOKENIZER_TOKENS) is None:
        return Kind("other", "it has no vocabulary")
    if not any(tensor.name == "token_embd.weight" for tensor in info.tensors):
        return Kind("other", "it has no token embeddings")
    return Kind("chat", f"'{architecture}' with {len(info.tensors)} tensors and a vocabulary")


def _by_declaration(info: GgufInfo, architecture: str) -> Kind | None:
    """Kinds that the file names itself, whether or not it has tensors."""
    declared = info.text(keys.GENERAL_TYPE)
    if declared == "adapter" or info.text(keys.ADAPTER_TYPE) is not None:
        return Kind("adapter", f"its adapter type is '{info.text(keys.ADAPTER_TYPE) or 'unknown'}'")
    if architecture == "controlvector":
        return Kind("adapter", "it is a control vector")
    if declared == "mmproj" or architecture in ("clip", "mmproj"):
        return Kind("projector", "it turns images or sound into a model's embeddings")
    if declared == "imatrix" or architecture == "imatrix":
        return Kind("other", "it is an importance matrix for quantising")
    if declared not in (None, "model"):
        return Kind("other", f"its '{keys.GENERAL_TYPE}' is '{declared}'")
    return None


def _embedding_reason(info: GgufInfo, architecture: str) -> str | None:
    if architecture in _EMBEDDING:
        return f"'{architecture}' is an embedding architecture"
    if info.flag(keys.arch_key(architecture, keys.ARCH_CAUSAL)) is False:
        return f"'{keys.arch_key(architecture, keys.ARCH_CAUSAL)}' is false"
    pooling = info.arch_number(keys.ARCH_POOLING_TYPE)
    if pooling is not None and pooling > 0:
        return f"it pools its states ({_POOLING_NAMES.get(pooling, pooling)})"
    return None
