"""A short run of the fuzzer; `make fuzz-bundles` runs a million."""

from __future__ import annotations

from pathlib import Path

from .fuzz import run


def test_damaged_inputs_are_taken_or_refused(tmp_path: Path) -> None:
    outcomes = run(0, 3000, tmp_path)
    for kind in ("gguf", "gguf-lora", "safetensors", "manifest", "yaml"):
        assert outcomes[f"{kind} refused"] > 100, outcomes
    assert sum(name.startswith("code ") for name in outcomes) > 20, outcomes
