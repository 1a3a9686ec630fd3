"""Makes tests/golden/bundle-v1, once. The files are frozen: every later version must open them as they are.

python tests/bundles/make_golden.py FOLDER
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from gguf_tools.bundle_converter import BundleConverter
from gguf_tools.bundle_folder import read_bundle_folder
from ltm_edge.overlay_set import packaged_documents
from tests.bundles import tiny

NAME = "golden-v1"


def make(out: Path) -> None:
    """A bundle with every kind of document and sidecar file, of random weights."""
    with tempfile.TemporaryDirectory() as scratch:
        model = tiny.make("llama", width=32, heads=2, kv_heads=1, size=16, inner=32, layers=2)
        base = tiny.write(model, Path(scratch) / "base.gguf", "Q8_0")
        folder = Path(scratch) / NAME
        documents = packaged_documents()
        overlay = documents["ltm_overlay_config.yaml"].replace("name: default", f"name: {NAME}", 1)
        field = documents["field_architecture.yaml"]
        field = field.replace("      sampling: {temperature: 0.9}\n", "      head_gates: {0: {1: 1.5}}\n", 1)
        curriculum = "curriculum:\n  version: 1\n  phases: [{phase: myth}]\n  data: [data/*.jsonl]\n"
        tiny.bundle(
            folder,
            **{
                "config.json": {"lora": {"lora_alpha": 8}},
                "field_architecture.yaml": field.encode(),
                "prompts.yaml": documents["prompts.yaml"].encode(),
                "scene_templates/initiation.yaml": documents["scene_templates/initiation.yaml"].encode(),
                "scene_templates/hearth.yaml": documents["scene_templates/hearth.yaml"].encode(),
                "curriculum.yaml": curriculum.encode(),
                "integration_log.json": {"format": "ltm-integration-log", "version": 1, "entries": []},
                "memory_faiss/scene_embeddings.index": b"an index that is made again when it can't be read",
                "memory_faiss/meta.json": [],
            },
        )
        (folder / "ltm_overlay_config.yaml").write_text(overlay, encoding="utf-8")
        lora = {name: values.astype(np.float16) for name, values in tiny.lora(model).items()}
        tiny.safetensors(folder / "model_lora.safetensors", lora)
        assert read_bundle_folder(folder)[1] == []
        out.mkdir(parents=True, exist_ok=True)
        BundleConverter(folder, base, Path(scratch) / f"{NAME}.gguf").run()
        shutil.copy(Path(scratch) / f"{NAME}.gguf", out)
        shutil.copytree(Path(scratch) / f"{NAME}.ltm", out / f"{NAME}.ltm")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
