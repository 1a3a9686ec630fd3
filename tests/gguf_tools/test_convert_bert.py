"""The BERT converter on a tiny model of its own: what it writes, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_tools.convert_bert import BadModel, convert_bert
from gguf_tools.errors import GgufError
from gguf_tools.reader import read_gguf
from gguf_tools.verify import verify

from .test_safetensors import build

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##ing", "sing", None, "."]
CONFIG = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "vocab_size": 10,
    "layer_norm_eps": 1e-12,
}


def tokenizer() -> dict[str, Any]:
    return {
        "model": {"type": "WordPiece", "vocab": {t: i for i, t in enumerate(VOCABULARY) if t}},
        "added_tokens": [{"id": i, "content": VOCABULARY[i], "special": True} for i in range(5)],
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None},
    }


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (10, 32),
        "embeddings.position_embeddings.weight": (16, 32),
        "embeddings.token_type_embeddings.weight": (2, 32),
        "embeddings.LayerNorm.weight": (32,),
        "embeddings.LayerNorm.bias": (32,),
        "pooler.dense.weight": (32, 32),
    }
    for name, rows, columns in (
        ("attention.self.query", 32, 32),
        ("attention.self.key", 32, 32),
        ("attention.self.value", 32, 32),
        ("attention.output.dense", 32, 32),
        ("intermediate.dense", 64, 32),
        ("output.dense", 32, 64),
    ):
        shapes[f"encoder.layer.0.{name}.weight"] = (rows, columns)
        shapes[f"encoder.layer.0.{name}.bias"] = (rows,)
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        shapes[f"encoder.layer.0.{name}.weight"] = shapes[f"encoder.layer.0.{name}.bias"] = (32,)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def safetensors(arrays: dict[str, np.ndarray]) -> bytes:
    header, data = {}, b""
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    return build(header, data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "model"
    (found / "1_Pooling").mkdir(parents=True)
    (found / "config.json").write_text(json.dumps(CONFIG))
    (found / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (found / "modules.json").write_text(json.dumps([{"type": "x.Pooling", "path": "1_Pooling"}]))
    (found / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (found / "model.safetensors").write_bytes(safetensors(tensors()))
    return found


@pytest.mark.parametrize("type_", ["F16", "Q8_0"])
def test_the_file_is_what_llama_cpp_expects(folder, tmp_path, type_):
    out = tmp_path / "out.gguf"
    convert_bert(folder, out, type_, name="tiny", licence="MIT")
    info = read_gguf(out)
    assert verify(out).problems == ()
    words = info.array("tokenizer.ggml.tokens").values()
    assert words == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁the", "ing", "▁sing", "[PAD8]", "▁.")
    assert info.array("tokenizer.ggml.token_type").values() == (3, 3, 3, 3, 3, 1, 1, 1, 5, 1)
    assert (info.text("general.name"), info.text("general.license")) == ("tiny", "MIT")
    assert info.number("bert.pooling_type") == 2 and info.flag("bert.attention.causal") is False
    types = {tensor.name: tensor.type.name for tensor in info.tensors}
    assert len(types) == 5 + 16
    assert types["token_embd.weight"] == types["blk.0.ffn_down.weight"] == type_
    assert types["position_embd.weight"] == types["token_types.weight"] == types["blk.0.attn_q.bias"] == "F32"
    up = next(tensor for tensor in info.tensors if tensor.name == "blk.0.ffn_up.weight")
    assert up.shape == (32, 64)


def test_the_same_input_gives_the_same_bytes(folder, tmp_path):
    hashes = set()
    for i in range(2):
        convert_bert(folder, tmp_path / f"{i}.gguf", "Q8_0")
        hashes.add(hashlib.sha256((tmp_path / f"{i}.gguf").read_bytes()).hexdigest())
    assert len(hashes) == 1


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def weights(folder: Path, **arrays: np.ndarray | None) -> None:
    found = {**tensors(), **{k.replace("__", "."): v for k, v in arrays.items()}}
    (folder / "model.safetensors").write_bytes(safetensors({k: v for k, v in found.items() if v is not None}))


REFUSED = {
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "no config": lambda f: (f / "config.json").unlink(),
    "no tokenizer": lambda f: (f / "tokenizer.json").unlink(),
    "no json": lambda f: (f / "config.json").write_text("{"),
    "list": lambda f: (f / "config.json").write_text("[]"),
    "deep": lambda f: (f / "tokenizer.json").write_text("[" * 200_000),
    "other model": lambda f: change(f, "config.json", model_type="gpt2"),
    "layers": lambda f: change(f, "config.json", num_hidden_layers=10**9),
    "more layers": lambda f: change(f, "config.json", num_hidden_layers=2),
    "width": lambda f: change(f, "config.json", hidden_size="32"),
    "heads": lambda f: change(f, "config.json", num_attention_heads=3),
    "epsilon": lambda f: change(f, "config.json", layer_norm_eps=0),
    "vocabulary size": lambda f: change(f, "config.json", vocab_size=9),
    "bpe": lambda f: change(f, "tokenizer.json", model={"type": "BPE", "vocab": {}}),
    "ids": lambda f: change(f, "tokenizer.json", model={"vocab": {"a": 0, "b": 0}}),
    "no unk": lambda f: change(f, "tokenizer.json", model={"vocab": {"a": 7}}, added_tokens=[]),
    "normaliser": lambda f: change(f, "tokenizer.json", normalizer={"type": "NFC"}),
    "path trick": lambda f: (f / "modules.json").write_text('[{"type": "Pooling", "path": "../.."}]'),
    "pooling": lambda f: (f / "1_Pooling" / "config.json").write_text("{}"),
    "missing tensor": lambda f: weights(f, embeddings__LayerNorm__bias=None),
    "shape": lambda f: weights(f, embeddings__LayerNorm__bias=np.zeros(31, np.float32)),
    "unknown tensor": lambda f: weights(f, classifier__weight=np.zeros(31, np.float32)),
    "nan": lambda f: weights(f, embeddings__LayerNorm__bias=np.full(32, np.nan, np.float32)),
    "beyond float16": lambda f: weights(f, embeddings__word_embeddings__weight=np.full((10, 32), 1e6, np.float32)),
    "truncated": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-5]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_folder_is_refused_and_nothing_is_left(folder, tmp_path, name):
    REFUSED[name](folder)
    out = tmp_path / "out.gguf"
    out.write_bytes(b"before")
    with pytest.raises(GgufError) as caught:
        convert_bert(folder, out)
    assert "\n" not in str(caught.value)
    assert name == "truncated" or name == "no weights" or isinstance(caught.value, BadModel)
    assert out.read_bytes() == b"before" and {p.name for p in tmp_path.iterdir()} == {"model", "out.gguf"}
