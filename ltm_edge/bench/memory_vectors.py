"""Vectors to search: made ones in clusters, and embeddings of sentences."""

from __future__ import annotations

import numpy as np

from ltm_edge.bundle import load_overlay
from ltm_edge.embedders import demo_embedder
from ltm_edge.memory.index import Floats

__all__ = ["DIM", "clustered", "sentences"]

DIM = 384
"""Components of the demo embedder's vectors, and of the made ones."""

_PER_CLUSTER = 100
_PIECE = 50_000
_JOINTS = ("and", "because", "although", "while", "and yet", "since", "so", "but")


def clustered(count: int, seed: int = 0) -> Floats:
    """Vectors around random centres, a hundred to each and as far from it as it is long, float32 [count, DIM]."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(1, count // _PER_CLUSTER), DIM), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    made = np.empty((count, DIM), dtype=np.float32)
    for i in range(0, count, _PIECE):
        piece = made[i : i + _PIECE]
        random.standard_normal(out=piece, dtype=np.float32)
        piece *= np.float32(DIM**-0.5)
        piece += centres[random.integers(0, len(centres), len(piece))]
        piece /= np.linalg.norm(piece, axis=1, keepdims=True)
    return made


def sentences(count: int, threads: int | None = None, seed: int = 0) -> Floats:
    """The demo embedder's vectors of sentences, each joined from two of the packaged anchors, float32 [count, DIM].

    Raises:
        ModelError: the demo embedder isn't there.
    """
    templates = load_overlay(None).templates.values()
    parts = sorted({text for template in templates for text in template.anchors.get("en", ())})
    random = np.random.default_rng(seed)
    chosen = random.choice(len(parts) ** 2 * len(_JOINTS), size=count, replace=False)
    texts = []
    for number in chosen.tolist():
        number, joint = divmod(number, len(_JOINTS))
        first, second = divmod(number, len(parts))
        texts.append(f"{parts[first]} {_JOINTS[joint]} {parts[second]}")
    embedder = demo_embedder(threads=threads)
    try:
        return embedder.embed(texts)
    finally:
        embedder.close()
