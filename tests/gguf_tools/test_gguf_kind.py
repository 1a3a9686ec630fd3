"""What a file is taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_tools.kind import kind
from gguf_tools.reader import read_gguf

from .gguf_bytes import Gguf, chat_entries, chat_model, flag, string, strings, tensor, u32

WEIGHTS = [tensor("token_embd.weight", [2, 4], 0, 0)]
TOKENS = strings("tokenizer.ggml.tokens", ["a"])


def model(*entries: bytes, tensors: bool = True) -> Gguf:
    return Gguf(list(entries), WEIGHTS if tensors else [], bytes(32) if tensors else b"")


def arch(name: str) -> bytes:
    return string("general.architecture", name)


CASES = {
    "plain model": (chat_model(), "chat", "'llama' with 1 tensors"),
    "unknown architecture": (model(arch("brandnew"), TOKENS), "chat", "'brandnew'"),
    "pooling none": (chat_model([u32("llama.pooling_type", 0)]), "chat", "'llama'"),
    "first part of a split model": (chat_model([u32("split.no", 0), u32("split.count", 3)]), "chat", "'llama'"),
    "no weights": (Gguf(chat_entries()), "vocabulary", "no weights"),
    "embedding vocabulary": (model(arch("bert"), TOKENS, tensors=False), "vocabulary", "no weights"),
    "nothing at all": (Gguf(), "other", "no weights"),
    "bert": (model(arch("bert"), TOKENS), "embedding", "'bert' is an embedding architecture"),
    "nomic": (model(arch("nomic-bert-moe"), TOKENS), "embedding", "nomic"),
    "jina": (model(arch("jina-bert-v2"), TOKENS), "embedding", "jina"),
    "not causal": (chat_model([flag("llama.attention.causal", 0)]), "embedding", "'llama.attention.causal' is false"),
    "pooled": (chat_model([u32("llama.pooling_type", 3)]), "embedding", "last token"),
    "reranker": (chat_model([u32("llama.pooling_type", 4)]), "embedding", "rank"),
    "LoRA": (
        model(string("general.type", "adapter"), string("adapter.type", "lora"), arch("llama")),
        "adapter",
        "'lora'",
    ),
    "control vector": (model(arch("controlvector")), "adapter", "control vector"),
    "projector": (model(arch("clip")), "projector", "embeddings"),
    "mmproj": (model(string("general.type", "mmproj"), arch("clip")), "projector", "embeddings"),
    "imatrix": (model(string("general.type", "imatrix")), "other", "importance matrix"),
    "type from the future": (chat_model([string("general.type", "dream")]), "other", "'general.type' is 'dream'"),
    "later part of a split model": (
        model(u32("split.no", 1), u32("split.count", 3)),
        "other",
        "part 2 of 3",
    ),
    "no architecture": (model(TOKENS), "other", "no 'general.architecture'"),
    "diffusion": (model(arch("llada"), TOKENS), "other", "diffusion"),
    "encoder-decoder": (model(arch("t5"), TOKENS), "other", "encoder-decoder"),
    "image model": (model(arch("flux")), "other", "no vocabulary"),
    "no embeddings": (
        Gguf([arch("llama"), TOKENS], [tensor("blk.0.attn_q.weight", [2, 4], 0, 0)], bytes(32)),
        "other",
        "no token embeddings",
    ),
    "architecture that is a number": (model(u32("general.architecture", 5), TOKENS), "other", "no 'general.arch"),
}


@pytest.mark.parametrize("name", CASES)
def test_kind(name: str, tmp_path: Path) -> None:
    parts, expected, words = CASES[name]
    found = kind(read_gguf(parts.write(tmp_path / "file.gguf")))
    assert found.name == expected, found.reason
    assert words in found.reason


@pytest.mark.needs_model
def test_demo_model_and_its_vocabulary(demo_file: Path, tmp_path: Path) -> None:
    info = read_gguf(demo_file)
    assert kind(info).name == "chat"
    # The same metadata, byte for byte, and no tensors.
    raw = demo_file.open("rb").read(info.data_offset)
    end = max(field.offset + field.nbytes for field in info.fields.values())
    vocabulary = tmp_path / "vocabulary.gguf"
    vocabulary.write_bytes(raw[:8] + bytes(8) + raw[16:end])
    found = read_gguf(vocabulary)
    assert kind(found).name == "vocabulary"
    tokens = found.array("tokenizer.ggml.tokens")
    assert tokens is not None and len(tokens) == 49152
