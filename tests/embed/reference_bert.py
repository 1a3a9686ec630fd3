"""all-MiniLM-L6-v2 in plain numpy, float32: the reference that the golden embeddings were made with.

WordPiece after google-research/bert's `tokenization.py` and the `BertNormalizer` and `BertPreTokenizer` of
huggingface/tokenizers; the network after Devlin et al., 2019 (arXiv:1810.04805); mean pooling and scaling to length 1
as the model's sentence-transformers files ask for. It shares no code with the embedder: the weights are read by hand.

Run as a program it makes `data/golden.npz` from `data/sentences.jsonl`:

    python tests/embed/reference_bert.py MODEL_FOLDER
"""

from __future__ import annotations

import json
import math
import struct
import sys
import unicodedata
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"


def sentences() -> list[str]:
    return [json.loads(line) for line in (DATA / "sentences.jsonl").read_text(encoding="utf-8").splitlines()]


class WordPiece:
    def __init__(self, folder: Path) -> None:
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self.ids = {token: index for index, token in enumerate(lines)}

    def __call__(self, text: str) -> list[int]:
        found = [self.ids["[CLS]"]]
        for word in self.words(text):
            found += self.pieces(word)
        return [*found, self.ids["[SEP]"]]

    def words(self, text: str) -> list[str]:
        clean = "".join(" " if c.isspace() else c for c in text if c.isspace() or not self.dropped(c))
        spaced = "".join(f" {c} " if self.ideograph(ord(c)) else c for c in clean)
        bare = "".join(c for c in unicodedata.normalize("NFD", spaced) if unicodedata.category(c) != "Mn")
        lower = "".join(c.lower() for c in bare)
        return "".join(f" {c} " if self.punctuation(c) else c for c in lower).split()

    def pieces(self, word: str) -> list[int]:
        if len(word) > 100:
            return [self.ids["[UNK]"]]
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.ids:
                    found.append(self.ids[piece])
                    start = end
                    break
            else:
                return [self.ids["[UNK]"]]
        return found

    @staticmethod
    def dropped(c: str) -> bool:
        return c in "\0\ufffd" or unicodedata.category(c).startswith("C")

    @staticmethod
    def punctuation(c: str) -> bool:
        ascii_symbol = 33 <= ord(c) <= 47 or 58 <= ord(c) <= 64 or 91 <= ord(c) <= 96 or 123 <= ord(c) <= 126
        return ascii_symbol or unicodedata.category(c).startswith("P")

    @staticmethod
    def ideograph(n: int) -> bool:
        ranges = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2CEAF))
        return any(a <= n <= b for a, b in (*ranges, (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)))


class Bert:
    def __init__(self, folder: Path) -> None:
        raw = (folder / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        self.w = {
            name: np.frombuffer(raw, "<f4", math.prod(e["shape"]), 8 + length + e["data_offsets"][0]).reshape(
                e["shape"]
            )
            for name, e in header.items()
            if name != "__metadata__" and e["dtype"] == "F32"
        }
        self.heads = json.loads((folder / "config.json").read_text())["num_attention_heads"]
        self.layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
        self.wordpiece = WordPiece(folder)

    def dense(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def embed(self, text: str) -> np.ndarray:
        ids = self.wordpiece(text)
        e = "embeddings"
        x = self.w[f"{e}.word_embeddings.weight"][ids] + self.w[f"{e}.position_embeddings.weight"][: len(ids)]
        x = self.norm(f"{e}.LayerNorm", x + self.w[f"{e}.token_type_embeddings.weight"][0])
        for layer in range(self.layers):
            p = f"encoder.layer.{layer}"
            q, k, v = (
                self.dense(f"{p}.attention.self.{part}", x).reshape(len(ids), self.heads, -1).transpose(1, 0, 2)
                for part in ("query", "key", "value")
            )
            scores = q @ k.transpose(0, 2, 1) / np.sqrt(np.float32(q.shape[-1]))
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            mixed = (weights @ v).transpose(1, 0, 2).reshape(len(ids), -1)
            x = self.norm(f"{p}.attention.output.LayerNorm", self.dense(f"{p}.attention.output.dense", mixed) + x)
            up = self.dense(f"{p}.intermediate.dense", x)
            up = up * np.float32(0.5) * (1 + np.vectorize(math.erf, otypes=[np.float32])(up / np.sqrt(np.float32(2))))
            x = self.norm(f"{p}.output.LayerNorm", self.dense(f"{p}.output.dense", up) + x)
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)


if __name__ == "__main__":
    model = Bert(Path(sys.argv[1]))
    texts = sentences()
    tokens = [model.wordpiece(text) for text in texts]
    np.savez_compressed(
        DATA / "golden.npz",
        vectors=np.stack([model.embed(text) for text in texts]).astype(np.float16),
        tokens=np.concatenate(tokens).astype(np.uint16),
        lengths=np.array([len(t) for t in tokens], dtype=np.uint16),
    )
