"""The frozen bundle of format version 1: its bytes never change, and every later version opens it and runs it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from gguf_tools.bundle_reader import BundleReader
from gguf_tools.verify import verify
from ltm_edge.overlay_set import load_overlay

from . import tiny

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-v1" / "golden-v1.gguf"
SHA256 = {
    "golden-v1.gguf": "d3fdf25d0ba5c11ff16289d5ab733b421852e1bf8dc8a4e1fe9adde22a11073c",
    "golden-v1.ltm/manifest.json": "80cec2ba620dc05d7d25c4fd2e075831edaf3ea84bdfb4c055a87b333565e4e1",
}
TOKENS = [1, 9, 40, 77]
# The last token's first logits, as llama.cpp gave them when the file was made.
LOGITS = [4.619, -2.377, 0.086, -2.669]
GATED = [4.503, -2.186, 0.411, -2.6]


def test_files_are_the_frozen_ones() -> None:
    for name, sha256 in SHA256.items():
        assert hashlib.sha256((GOLDEN.parent / name).read_bytes()).hexdigest() == sha256, name
    assert verify(GOLDEN).problems == ()


def test_every_version_opens_it() -> None:
    reader = BundleReader.open(GOLDEN)
    assert reader.name == "golden-v1" and reader.entries["ltm.format_version"] == "1"
    assert set(reader.files) == {
        "channels/poet.gguf",
        "integration_log.json",
        "memory/meta.json",
        "memory/scene_embeddings.index",
    }
    loaded = load_overlay(reader.documents, "golden")
    assert loaded.overlay.name == "golden-v1" and list(loaded.templates) == ["hearth", "initiation"]
    poet = loaded.field.channels["poet"]
    assert {layer: dict(heads) for layer, heads in poet.head_gates.items()} == {"0": {"1": 1.5}}
    assert loaded.languages == ("en", "ru")


def test_it_runs_as_it_did() -> None:
    found = tiny.logits(GOLDEN, TOKENS)[-1, :4]
    assert np.allclose(found, LOGITS, atol=0.05)
    gated = tiny.logits(GOLDEN, TOKENS, [(BundleReader.open(GOLDEN).channels["poet"], 1.0)])[-1, :4]
    assert np.allclose(gated, GATED, atol=0.05)
    assert np.abs(gated - found).max() > 0.2
