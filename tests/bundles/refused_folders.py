"""Bundle folders that are refused: how each is made of a sound one, and words of the line that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import tiny

LAYER = "base_model.model.model.layers.0.self_attn."


def with_lora(folder: Path, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A folder with a LoRA in PEFT form, its settings changed."""
    tiny.bundle(folder, **{"adapter_config.json": tiny.config(**changes)})
    tiny.safetensors(folder / "adapter_model.safetensors", tensors or tiny.lora(tiny.make("llama")))
    return folder


def rows(name: str, values: Any) -> dict[str, Any]:
    """A LoRA in which one tensor is another."""
    found = dict(tiny.lora(tiny.make("llama")))
    found[f"{LAYER}{name}"] = values
    return found


def strange(dtype: str = "f4") -> Any:
    return np.ones((4, 64), dtype)


def runtime(folder: Path, alpha: float, arch: str = "llama") -> Path:
    """A folder with a LoRA in GGUF form."""
    tiny.runtime_lora(tiny.make(arch), tiny.lora(tiny.make(arch)), tiny.bundle(folder) / "model_lora.gguf", alpha)
    return folder


def with_channel(folder: Path, lora: dict[str, Any], alpha: float = 8.0) -> Path:
    """A folder whose poet has an adapter in GGUF form."""
    field = b"field: {version: 1, zones: {poet: {kind: channel, adapter: poet.gguf}}}"
    tiny.bundle(folder, **{"field_architecture.yaml": field})
    tiny.runtime_lora(tiny.make("llama"), lora, folder / "poet.gguf", alpha)
    return folder


def gated(gain: bytes) -> bytes:
    """A field with one gated head."""
    return b"field: {version: 1, zones: {a: {kind: channel, head_gates: {0: {0: %s}}}}}" % gain


def with_embedder(folder: Path) -> None:
    """A bundle whose embedder is a chat model."""
    tiny.bundle(folder)
    overlay = "ltm_overlay: {version: 1, name: a, embedder: {file: base.gguf}}"
    (folder / "ltm_overlay_config.yaml").write_text(overlay)
    tiny.write(tiny.make("llama"), folder / "base.gguf")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "DoRA by its settings": (lambda f: with_lora(f, use_dora=True), "is a DoRA"),
    "DoRA by its tensors": (
        lambda f: with_lora(f, rows("q_proj.lora_magnitude_vector", np.ones(64, "f4"))),
        "is a DoRA",
    ),
    "another kind of adapter": (lambda f: with_lora(f, peft_type="LOHA"), "peft_type is LOHA, only LORA"),
    "PiSSA": (lambda f: with_lora(f, init_lora_weights="pissa_niter_4"), "a base that its initialisation had changed"),
    "transposed weights": (lambda f: with_lora(f, fan_in_fan_out=True), "fan_in_fan_out"),
    "single token rows": (lambda f: with_lora(f, trainable_token_indices=[1]), "trainable_token_indices"),
    "tensor of another model": (
        lambda f: with_lora(f, rows("qkv_proj.lora_A.weight", strange())),
        "without a place in a 'llama' model: 'base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight'",
    ),
    "bias inside a pair": (lambda f: with_lora(f, rows("q_proj.lora_B.bias", np.ones(64, "f4"))), "without a place"),
    "half of a pair": (
        lambda f: with_lora(
            f, {k: v for k, v in tiny.lora(tiny.make("llama")).items() if "0.mlp.up_proj.lora_B" not in k}
        ),
        "'base_model.model.model.layers.0.mlp.up_proj' has no lora_B",
    ),
    "NaN weights": (
        lambda f: with_lora(f, rows("q_proj.lora_A.weight", np.full((4, 64), np.nan, "f4"))),
        "lora_A.weight' holds 256 NaN or infinite of 256 numbers",
    ),
    "infinite weights": (
        lambda f: with_lora(f, rows("q_proj.lora_A.weight", np.full((4, 64), np.inf, "f2"))),
        "holds 256 NaN or infinite",
    ),
    "whole numbers": (lambda f: with_lora(f, rows("q_proj.lora_A.weight", strange("i8"))), "is I64, expected floats"),
    "a vector for a matrix": (lambda f: with_lora(f, rows("q_proj.lora_A.weight", np.ones(4, "f4"))), "not a matrix"),
    "ranks that differ": (
        lambda f: with_lora(f, rows("q_proj.lora_A.weight", np.ones((3, 64), "f4"))),
        "ranks that differ: (3, 64), (64, 4)",
    ),
    "rank other than in the settings": (lambda f: with_lora(f, r=8), "has rank 4, its settings say 8"),
    "wrong base by its shapes": (
        lambda f: with_lora(f, tiny.lora(tiny.make("llama", width=128, heads=8))),
        "doesn't fit the base: 'blk.0.attn_k.weight' [32, 128] here, [32, 64] in the base",
    ),
    "more layers than the base": (
        lambda f: with_lora(f, tiny.lora(tiny.make("llama", layers=3))),
        "tensors that the base doesn't have: 'blk.2.attn_k.weight'",
    ),
    "wrong base by its hash": (lambda f: with_lora(f, base_sha256="0" * 64), "was made for the base 000000000000000…"),
    "alpha unknown": (
        lambda f: tiny.safetensors(tiny.bundle(f) / "model_lora.safetensors", tiny.lora(tiny.make("llama"))),
        "its alpha isn't known",
    ),
    "hostile pattern": (lambda f: with_lora(f, alpha_pattern={"(a+)+$": 1}), "can't be used: too involved"),
    "slow pattern": (lambda f: with_lora(f, rank_pattern={".*" * 90 + "x": 4}), "can't be used: too involved"),
    "many choices in a pattern": (lambda f: with_lora(f, rank_pattern={"(a|a)" * 30: 4}), "too involved"),
    "broken pattern": (lambda f: with_lora(f, rank_pattern={"(": 4}), "the pattern '(' can't be used"),
    "patterns that are a list": (lambda f: with_lora(f, rank_pattern=[4]), "'rank_pattern' isn't a JSON object"),
    "alpha of 400 digits": (lambda f: with_lora(f, lora_alpha=10**400), "expected a number above 0"),
    "alpha that is a text": (lambda f: with_lora(f, lora_alpha="8"), "'lora_alpha' is \"8\", expected a number"),
    "rank of four and a half": (lambda f: with_lora(f, r=4.5), "'r' is 4.5, expected a whole number above 0"),
    "rslora that is a text": (lambda f: with_lora(f, use_rslora="yes"), "expected true or false"),
    "repeated layers": (lambda f: with_lora(f, layer_replication=[[0, 2], [1, 2]]), "repeats layers of its base"),
    "activated LoRA": (lambda f: with_lora(f, alora_invocation_tokens=[5]), "from its invocation tokens on only"),
    "two pairs for one tensor": (
        lambda f: with_lora(
            f,
            {
                **tiny.lora(tiny.make("llama")),
                **{k.removeprefix("base_model.model."): v for k, v in tiny.lora(tiny.make("llama")).items()},
            },
        ),
        "has two pairs for 'blk.0.ffn_down.weight'",
    ),
    "settings without weights": (
        lambda f: tiny.bundle(f, **{"adapter_config.json": tiny.config()}),
        "adapter_config.json: the weights are missing",
    ),
    "weights as a pickle": (
        lambda f: tiny.bundle(f, **{"lora/adapter_model.bin": b"PK"}),
        "lora/adapter_model.bin: is a PyTorch file, which may hold code",
    ),
    "a LoRA of another name": (
        lambda f: tiny.safetensors(tiny.bundle(f) / "my_lora.safetensors", tiny.lora(tiny.make("llama"))),
        "my_lora.safetensors: a LoRA is looked for as",
    ),
    "a PEFT folder of another name": (
        lambda f: tiny.bundle(f, **{"my_adapter/adapter_config.json": tiny.config()}),
        "my_adapter: is a PEFT folder; call it lora",
    ),
    "settings that are a folder": (
        lambda f: (
            tiny.safetensors(tiny.bundle(f) / "adapter_model.safetensors", tiny.lora(tiny.make("llama"))),
            (f / "adapter_config.json").mkdir(),
        ),
        "adapter_config.json: is a folder",
    ),
    "width of 400 digits": (
        lambda f: tiny.bundle(f, **{"config.json": {"hidden_size": 10**400}}),
        "hidden_size is a number of more than 64 bits",
    ),
    "a GGUF LoRA without a sound alpha": (
        lambda f: runtime(f, float("nan")),
        "'adapter.lora.alpha' is nan",
    ),
    "a GGUF LoRA for another architecture": (lambda f: runtime(f, 8.0, "qwen2"), "is for the architecture 'qwen2'"),
    "two LoRAs": (
        lambda f: tiny.safetensors(with_lora(f) / "model_lora.safetensors", tiny.lora(tiny.make("llama"))),
        "one LoRA is merged; keep one of them",
    ),
    "no overlay": (
        lambda f: (with_lora(f) / "ltm_overlay_config.yaml").unlink(),
        "ltm_overlay_config.yaml: is missing",
    ),
    "aliases": (
        lambda f: (with_lora(f) / "ltm_overlay_config.yaml").write_text("a: &a [1]\nb: *a\n"),
        "has aliases",
    ),
    "tags": (lambda f: (with_lora(f) / "prompts.yaml").write_text("a: !!int ''"), "prompts.yaml: has tags"),
    "a link out of the folder": (
        lambda f: (with_lora(f) / "prompts.yaml").symlink_to("/etc/passwd"),
        "prompts.yaml: leads out of the folder",
    ),
    "embedder that is none": (with_embedder, "base.gguf: is no embedding model"),
    "an empty overlay": (
        lambda f: (tiny.bundle(f) / "ltm_overlay_config.yaml").write_bytes(b""),
        "ltm_overlay_config.yaml: ltm_overlay: is missing, or no mapping",
    ),
    "an overlay of a newer version": (
        lambda f: (tiny.bundle(f) / "ltm_overlay_config.yaml").write_text("ltm_overlay: {version: 2, name: a}"),
        "version 2 is newer than the newest known, 1",
    ),
    "a name that is a path": (
        lambda f: (tiny.bundle(f) / "ltm_overlay_config.yaml").write_text("ltm_overlay: {version: 1, name: ../../x}"),
        "'../../x' is no name",
    ),
    "zones that are a list": (
        lambda f: tiny.bundle(f, **{"field_architecture.yaml": b"field: {version: 1, zones: [a]}"}),
        "field.zones: is missing, or no mapping",
    ),
    "NaN in a channel's adapter": (
        lambda f: with_channel(f, rows("q_proj.lora_A.weight", np.full((4, 64), np.nan, "f4"))),
        "lora_a' holds 256 NaN or infinite of 256 numbers",
    ),
    "a channel's adapter for another base": (
        lambda f: with_channel(f, rows("q_proj.lora_A.weight", np.ones((4, 32), "f4"))),
        "doesn't fit the base: 'blk.0.attn_q.weight' [64, 32] here, [64, 64] in the base",
    ),
    "a channel's adapter without a sound alpha": (
        lambda f: with_channel(f, tiny.lora(tiny.make("llama")), float("inf")),
        "'adapter.lora.alpha' is inf",
    ),
    "a gain of 400 digits": (
        lambda f: tiny.bundle(f, **{"field_architecture.yaml": gated(b"1" + b"0" * 400)}),
        "a gain from -16 to 16",
    ),
    "a file where a folder is due": (
        lambda f: tiny.bundle(f, scene_templates=b"x", memory=b"x"),
        "scene_templates: is no folder",
    ),
    "a folder that leads out": (
        lambda f: (tiny.bundle(f) / "memory").symlink_to("/etc", target_is_directory=True),
        "memory: leads out of the folder",
    ),
    "a link to a folder inside the memory": (
        lambda f: (tiny.bundle(f, **{"memory/a.txt": b"x"}) / "memory" / "b").symlink_to("/etc"),
        "memory/b: is a link to a folder",
    ),
    "names that differ in case only": (
        lambda f: tiny.bundle(f, **{"memory/Notes.txt": b"x", "memory/notes.txt": b"y"}),
        "differ in case only",
    ),
    "a template's other ending": (
        lambda f: tiny.bundle(f, **{"scene_templates/a.yml": b"name: a"}),
        "scene_templates/a.yml: files in scene_templates end in .yaml",
    ),
    "memory in use": (
        lambda f: tiny.bundle(f, **{"memory/scenes.sqlite": b"x", "memory/scenes.sqlite-wal": b"y"}),
        "the memory is in use",
    ),
}
