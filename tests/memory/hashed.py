"""An embedder without a model: two texts are alike as far as they share words; deterministic everywhere."""

from __future__ import annotations

import hashlib

import numpy as np

from ltm_edge.memory.protocols import Floats
from ltm_edge.scene.words import content_stems

# Words of one meaning share a stem here, so that tests can ask with other words than were told.
SYNONYMS = {"dog": "pet", "cat": "pet", "puppy": "pet"}


class HashedEmbedder:
    """Bag of hashed stems, float32 [n, dim], of length 1."""

    def __init__(self, dim: int = 64, name: str = "hashed", latin_only: bool = False) -> None:
        self.dim = dim
        self.id = f"{name}-{dim}"
        self.latin_only = latin_only
        self.calls = 0

    def covers(self, text: str) -> bool:
        return not self.latin_only or all(ord(char) < 0x250 for char in text if char.isalpha())

    def embed(self, texts: list[str]) -> Floats:
        self.calls += 1
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in content_stems(text) or ["nothing"]:
                digest = hashlib.blake2b(SYNONYMS.get(word, word).encode(), digest_size=8).digest()
                out[row, int.from_bytes(digest[:4], "little") % self.dim] += 1.0 if digest[4] & 1 else -1.0
            if not out[row].any():
                out[row, 0] = 1.0
        return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)
