"""Every metadata key that ltm-edge reads or writes, in one place. `FORMAT.md` says what each one means."""

from __future__ import annotations

import re

# The version of the `ltm.*` keys and of the sidecar folder that this package writes and the newest it reads.
LTM_FORMAT_VERSION = 1

# Keys of the GGUF standard.
GENERAL_ALIGNMENT = "general.alignment"
GENERAL_ARCHITECTURE = "general.architecture"
GENERAL_BASENAME = "general.basename"
GENERAL_FILE_TYPE = "general.file_type"
GENERAL_LANGUAGES = "general.languages"
GENERAL_LICENSE = "general.license"
GENERAL_NAME = "general.name"
GENERAL_QUANTIZATION_VERSION = "general.quantization_version"
GENERAL_TYPE = "general.type"

ADAPTER_TYPE = "adapter.type"
ADAPTER_LORA_ALPHA = "adapter.lora.alpha"
# Ours: hash of the base that a LoRA was made for, and the head gates that were made part of one, as JSON.
ADAPTER_BASE_SHA256 = "adapter.base.sha256"
ADAPTER_HEAD_GATES = "adapter.head_gates"

SPLIT_NO = "split.no"
SPLIT_COUNT = "split.count"

TOKENIZER_MODEL = "tokenizer.ggml.model"
TOKENIZER_PRE = "tokenizer.ggml.pre"
TOKENIZER_TOKENS = "tokenizer.ggml.tokens"
TOKENIZER_TYPES = "tokenizer.ggml.token_type"
TOKENIZER_CHAT_TEMPLATE = "tokenizer.chat_template"

# Keys of one architecture: the part after `<architecture>.`.
ARCH_BLOCK_COUNT = "block_count"
ARCH_CONTEXT_LENGTH = "context_length"
ARCH_EMBEDDING_LENGTH = "embedding_length"
ARCH_HEAD_COUNT = "attention.head_count"
ARCH_HEAD_COUNT_KV = "attention.head_count_kv"
ARCH_CAUSAL = "attention.causal"
ARCH_POOLING_TYPE = "pooling_type"
ARCH_EXPERT_COUNT = "expert_count"

# Keys of a bundle. All of them are strings, so that llama.cpp's own metadata calls can read them.
LTM_PREFIX = "ltm."
LTM_FORMAT = "ltm.format_version"
LTM_NAME = "ltm.name"
LTM_OVERLAY = "ltm.overlay"
LTM_FIELD_ARCHITECTURE = "ltm.field_architecture"
LTM_CURRICULUM = "ltm.curriculum"
LTM_PROMPTS = "ltm.prompts"
LTM_SCENE_TEMPLATE_PREFIX = "ltm.scene_template."
LTM_PVQ_PREFIX = "ltm.pvq."
LTM_BASE_SHA256 = "ltm.base.sha256"
LTM_BASE_NAME = "ltm.base.name"
LTM_LORA_SHA256 = "ltm.lora.sha256"
LTM_LORA_SCALE = "ltm.lora.scale"
LTM_SIDECAR_SHA256 = "ltm.sidecar.sha256"

LTM_REQUIRED = (LTM_FORMAT, LTM_NAME, LTM_OVERLAY)
LTM_FIXED = (
    *LTM_REQUIRED,
    LTM_FIELD_ARCHITECTURE,
    LTM_CURRICULUM,
    LTM_PROMPTS,
    LTM_BASE_SHA256,
    LTM_BASE_NAME,
    LTM_LORA_SHA256,
    LTM_LORA_SCALE,
    LTM_SIDECAR_SHA256,
)

_DOCUMENT_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def arch_key(architecture: str, name: str) -> str:
    """The full key of an architecture's property: `arch_key("llama", ARCH_CONTEXT_LENGTH)`."""
    return f"{architecture}.{name}"


def scene_template_key(name: str) -> str:
    """The key under which the scene template of that name is stored.

    Raises:
        ValueError: the name is not kebab-case ASCII of at most 64 characters.
    """
    return LTM_SCENE_TEMPLATE_PREFIX + _checked("scene template", name)


def pvq_key(name: str) -> str:
    """The key under which the example request (PVQ) of that name is stored. Raises as :func:`scene_template_key`."""
    return LTM_PVQ_PREFIX + _checked("PVQ", name)


def _checked(kind: str, name: str) -> str:
    if len(name) > 64 or not _DOCUMENT_NAME.fullmatch(name):
        raise ValueError(f"{kind} name {name!r}: lower-case letters, digits and single hyphens, 64 at most")
    return name


def is_known_ltm_key(key: str) -> bool:
    """Whether `key` is one of the `ltm.*` names of this format version."""
    for prefix in (LTM_SCENE_TEMPLATE_PREFIX, LTM_PVQ_PREFIX):
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            return len(name) <= 64 and _DOCUMENT_NAME.fullmatch(name) is not None
    return key in LTM_FIXED
