"""Merging a LoRA: against llama.cpp applying it at run time, against the definition, and tensor by tensor."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from gguf_tools import errors
from gguf_tools.architectures import ARCHITECTURES, permute_rows
from gguf_tools.bundle_reader import BundleReader
from gguf_tools.reader import read_gguf

from . import hugging_face, tiny
from .conftest import TOKENS, Convert

NAMES = {name: next(a for a, text in gguf.MODEL_ARCH_NAMES.items() if text == name) for name in ARCHITECTURES}


def range_of(values: np.ndarray[Any, Any]) -> float:
    return float(np.ptp(values))


def peft(folder: Path, tensors: dict[str, Any], **changes: Any) -> Path:
    """A bundle folder with a LoRA as PEFT saves it."""
    tiny.bundle(folder, **{"adapter_config.json": tiny.config(**changes)})
    tiny.safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


def tensors_of(path: Path) -> dict[str, bytes]:
    info = read_gguf(path)
    return {t.name: info.stamp.read(t.offset, t.nbytes) for t in info.tensors}


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_merged_equals_applied_at_run_time(arch: str, tmp_path: Path, convert: Convert) -> None:
    model = tiny.make(arch)
    base = tiny.write(model, tmp_path / "base.gguf")
    lora = tiny.lora(model)
    merged = tiny.logits(convert(peft(tmp_path / "folder", lora), base).target, TOKENS)
    runtime = tiny.runtime_lora(model, lora, tmp_path / "lora.gguf", alpha=8)
    expected = tiny.logits(base, TOKENS, [(runtime, 1.0)])
    assert np.abs(merged - expected).max() <= 1e-3 * range_of(expected)
    assert np.abs(expected - tiny.logits(base, TOKENS)).max() > 0.1 * range_of(expected)  # the LoRA matters


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_merged_equals_the_model_as_hugging_face_defines_it(arch: str, tmp_path: Path, convert: Convert) -> None:
    """Told apart from a wrong order of rows, which the run-time adapter of the test above might share."""
    model = tiny.make(arch, heads=4, kv_heads=2)
    base = tiny.write(model, tmp_path / "base.gguf")
    assert np.abs(tiny.logits(base, TOKENS) - hugging_face.logits(model, TOKENS)).max() < 1e-3
    lora = tiny.lora(model)
    found = tiny.logits(convert(peft(tmp_path / "folder", lora), base).target, TOKENS)
    expected = hugging_face.logits(tiny.merged(model, lora, scale=2.0), TOKENS)
    assert np.abs(found - expected).max() <= 1e-3 * range_of(expected)


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_peft_with_transformers_agrees(arch: str, tmp_path: Path, convert: Convert) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    from .transformers_oracle import peft_logits

    model = tiny.make(arch)
    lora = tiny.lora(model)
    folder = peft(tmp_path / "folder", lora)
    found = tiny.logits(convert(folder, tiny.write(model, tmp_path / "base.gguf")).target, TOKENS)
    expected = peft_logits(model, lora, tiny.config(), tmp_path / "hf", TOKENS)
    assert np.abs(found - expected).max() <= 1e-3 * range_of(expected)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma"])
def test_llama_cpp_s_own_tool_agrees(arch: str, tmp_path: Path, convert: Convert) -> None:
    """It writes float16 only; two sums that round apart differ by one step of it."""
    tool = shutil.which("llama-export-lora")
    if tool is None:
        pytest.skip("llama-export-lora isn't on the PATH; it is built with llama.cpp's tools")
    model = tiny.make(arch)
    base = tiny.write(model, tmp_path / "base.gguf", "F16")
    lora = tiny.lora(model)
    runtime = tiny.runtime_lora(model, lora, tmp_path / "lora.gguf", alpha=8)
    theirs = tmp_path / "theirs.gguf"
    subprocess.run([tool, "-m", base, "--lora", runtime, "-o", theirs], check=True, capture_output=True)
    target = convert(peft(tmp_path / "folder", lora), base).target
    ours = tensors_of(target)
    merged = {name: data for name, data in tensors_of(theirs).items() if name.startswith("blk.") and "norm" not in name}
    for name, data in merged.items():
        if name.endswith(".weight"):
            steps = np.frombuffer(data, np.int16).astype(np.int32) - np.frombuffer(ours[name], np.int16)
            assert np.abs(steps).max() <= 1, name
            assert (steps != 0).mean() < 1e-2, name
    expected = tiny.logits(theirs, TOKENS)
    assert np.abs(tiny.logits(target, TOKENS) - expected).max() <= (1e-3 * range_of(expected))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_types_of_the_base(kind: str, tmp_path: Path, convert: Convert) -> None:
    """What is merged is what the base holds plus the change, rounded once to the base's type."""
    model = tiny.make("llama")
    base = tiny.write(model, tmp_path / "base.gguf", kind)
    lora = tiny.lora(model)
    target = convert(peft(tmp_path / "folder", lora), base).target
    raw = gguf.GGMLQuantizationType[kind]
    before, after = tensors_of(base), tensors_of(target)
    changed = 0
    for name, data in before.items():
        if ".attn_norm" in name or "ffn_norm" in name or not name.startswith("blk."):
            assert after[name] == data, name
            continue
        changed += 1
        rows = np.frombuffer(data, np.uint8)
        shape = next(t.shape for t in read_gguf(base).tensors if t.name == name)
        values = gguf.quants.dequantize(rows.reshape(shape[1], -1), raw)
        module = name.removesuffix(".weight")
        hf = next(m for m in lora if m.endswith("lora_A.weight") and tiny.gguf_name(model, _module(m)) == module)
        delta = lora[hf.replace("lora_A", "lora_B")] @ lora[hf]
        expected = values + 2 * tiny.stored(model, _module(hf), delta)
        found = gguf.quants.dequantize(np.frombuffer(after[name], np.uint8).reshape(shape[1], -1), raw)
        step = {"F16": 2e-3, "BF16": 1e-2, "Q8_0": 2e-2, "Q4_0": 0.2}[kind]
        assert np.abs(found - expected).max() <= step * np.abs(expected).max(), name
    assert changed == 14


@pytest.mark.parametrize("arch", ["llama", "gemma", "phi3"])
def test_float16_is_the_exact_sum_rounded_once(arch: str, tmp_path: Path, convert: Convert) -> None:
    """What a float16 file differs by from the LoRA at run time is this rounding: none could be nearer."""
    model = tiny.make(arch)
    base = tiny.write(model, tmp_path / "base.gguf", "F16")
    lora = tiny.lora(model)
    after = tensors_of(convert(peft(tmp_path / "folder", lora), base).target)
    found, exact = [], []
    for name in (name for name in lora if name.endswith("lora_A.weight")):
        module = _module(name)
        change = lora[name.replace("lora_A", "lora_B")].astype(np.float64) @ lora[name].astype(np.float64)
        held = model.weights[f"{module}.weight"].astype(np.float16).astype(np.float64)
        exact.append(tiny.stored(model, module, held + 2.0 * change).astype(np.float16).view(np.int16).ravel())
        found.append(np.frombuffer(after[f"{tiny.gguf_name(model, module)}.weight"], np.int16))
    apart = np.abs(np.concatenate(found).astype(np.int32) - np.concatenate(exact))
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3  # float32 sums that lie between two float16 numbers


def _module(name: str) -> str:
    return name.removeprefix("base_model.model.").split(".lora_")[0]


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "Q3_K"])
def test_k_quants_are_requantised(kind: str, tmp_path: Path, convert: Convert) -> None:
    """The gguf package can't write them; llama.cpp's own quantiser does."""
    model = tiny.make("llama", width=256, heads=4, kv_heads=2, size=64, inner=256)
    plain = tiny.write(model, tmp_path / "plain.gguf")
    base = convert(tiny.bundle(tmp_path / "empty"), plain, "base.gguf", outtype=kind).target
    kinds = {t.name: t.type.name for t in read_gguf(base).tensors}
    assert kinds["blk.0.attn_q.weight"] == kind and kinds["blk.0.attn_norm.weight"] == "F32"
    lora = tiny.lora(model)
    found = convert(peft(tmp_path / "folder", lora), base).target
    assert {t.name: t.type.name for t in read_gguf(found).tensors} == kinds
    exact = tiny.logits(tiny.write(tiny.merged(model, lora, 2.0), tmp_path / "exact.gguf"), TOKENS)
    unmerged = tiny.logits(base, TOKENS)
    error = np.sqrt(np.mean((tiny.logits(found, TOKENS) - exact) ** 2))
    assert error < {"Q6_K": 0.1, "Q4_K": 0.4, "Q3_K": 0.8}[kind] * np.sqrt(np.mean((unmerged - exact) ** 2))


def test_scale_of_the_command(tmp_path: Path, convert: Convert) -> None:
    model = tiny.make("qwen2")
    base = tiny.write(model, tmp_path / "base.gguf")
    folder = peft(tmp_path / "folder", tiny.lora(model))
    nothing = convert(folder, base, "nothing.gguf", lora_scale=0.0).target
    assert tensors_of(nothing) == tensors_of(base)
    half = tiny.logits(convert(folder, base, "half.gguf", lora_scale=0.5).target, TOKENS)
    exact = tiny.write(tiny.merged(model, tiny.lora(model), 1.0), tmp_path / "exact.gguf")
    assert np.abs(half - tiny.logits(exact, TOKENS)).max() <= 1e-3 * range_of(half)
    assert BundleReader.open(tmp_path / "half.gguf").entries["ltm.lora.scale"] == "0.5"


SCALES: dict[str, tuple[dict[str, Any], float]] = {
    "alpha over rank": ({}, 2.0),
    "alpha over the root of the rank": ({"use_rslora": True}, 4.0),
    "alpha of some modules": ({"alpha_pattern": {"q_proj": 2}}, 0.5),
    "alpha of a layer": ({"alpha_pattern": {r"layers\.0\.self_attn\.q_proj": 2}}, 0.5),
    "rank of some modules": ({"r": 16, "rank_pattern": {"q_proj": 4}}, 2.0),
    "first pattern that matches": ({"alpha_pattern": {"k_proj": 1, "self_attn.q_proj": 4, "q_proj": 2}}, 1.0),
}


@pytest.mark.parametrize("name", SCALES)
def test_scale_of_each_pair(name: str, tmp_path: Path, convert: Convert) -> None:
    changes, scale = SCALES[name]
    model = tiny.make("qwen2")
    base = tiny.write(model, tmp_path / "base.gguf")
    only = {k: v for k, v in tiny.lora(model).items() if "layers.0.self_attn.q_proj" in k}
    target = convert(peft(tmp_path / "folder", only, **changes), base).target
    before, after = tensors_of(base), tensors_of(target)
    assert [key for key in before if before[key] != after[key]] == ["blk.0.attn_q.weight"]
    a, b = (only[f"base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight"] for half in "AB")
    found = np.frombuffer(after["blk.0.attn_q.weight"], np.float32).reshape(b.shape[0], -1)
    expected = model.weights["model.layers.0.self_attn.q_proj.weight"] + np.float32(scale) * (b @ a)
    assert np.allclose(found, expected, atol=1e-5)


def test_alpha_from_everywhere(tmp_path: Path, convert: Convert) -> None:
    """adapter_config.json, the file's metadata as PEFT's JSON or as single values, the bundle's config.json."""
    model = tiny.make("llama")
    base = tiny.write(model, tmp_path / "base.gguf")
    lora = tiny.lora(model)
    expected = tensors_of(convert(peft(tmp_path / "a", lora), base, "a.gguf").target)
    forms: dict[str, tuple[dict[str, str] | None, dict[str, Any]]] = {
        "b": ({"adapter_config": json.dumps(tiny.config())}, {}),
        "c": ({"lora_alpha": "8", "r": "4"}, {}),
        "d": ({"alpha": "8.0", "use_rslora": "False"}, {}),
        "e": (None, {"lora": {"lora_alpha": 8}}),
    }
    for name, (metadata, facts) in forms.items():
        folder = tiny.bundle(tmp_path / name, **{"config.json": facts})
        tiny.safetensors(folder / "model_lora.safetensors", lora, metadata)
        assert tensors_of(convert(folder, base, f"{name}.gguf").target) == expected, name


def test_spellings_of_peft_names(tmp_path: Path, convert: Convert) -> None:
    """With and without the wrapper's prefix, the adapter's name and the class's prefix."""
    model = tiny.make("llama")
    base = tiny.write(model, tmp_path / "base.gguf")
    lora = tiny.lora(model)
    expected = tensors_of(convert(peft(tmp_path / "a", lora), base, "a.gguf").target)
    spellings = {
        "b": {k.replace(".weight", ".default.weight"): v for k, v in lora.items()},
        "c": {k.removeprefix("base_model.model."): v for k, v in lora.items()},
        "d": {k.replace("model.model.model.", "model.model.language_model.model."): v for k, v in lora.items()},
        "e": {k.removesuffix(".weight"): v for k, v in lora.items()},
        "f": {k: v.astype(np.float64) for k, v in lora.items()},
    }
    for name, tensors in spellings.items():
        assert tensors_of(convert(peft(tmp_path / name, tensors), base, f"{name}.gguf").target) == expected, name


def test_lora_in_gguf_form(tmp_path: Path, convert: Convert) -> None:
    model = tiny.make("llama")
    base = tiny.write(model, tmp_path / "base.gguf")
    folder = tiny.bundle(tmp_path / "folder")
    tiny.runtime_lora(model, tiny.lora(model), folder / "model_lora.gguf", alpha=8)
    expected = tensors_of(convert(peft(tmp_path / "a", tiny.lora(model)), base, "a.gguf").target)
    found = tensors_of(convert(folder, base).target)
    for name, data in expected.items():
        assert np.allclose(np.frombuffer(data, "f4"), np.frombuffer(found[name], "f4"), atol=1e-6), name


@pytest.mark.parametrize("arch", ["llama", "gemma2", "qwen2"])
def test_modules_to_save_replace_the_base_s(arch: str, tmp_path: Path, convert: Convert) -> None:
    model = tiny.make(arch)
    other = tiny.make(arch, seed=5)
    names = ["model.layers.0.input_layernorm.weight", "model.layers.1.self_attn.k_proj.weight"]
    names += ["lm_head.weight", "model.embed_tokens.weight"] if arch != "gemma2" else []
    names += ["model.layers.0.self_attn.q_proj.bias"] if arch == "qwen2" else []
    saved = {f"base_model.model.{name}": other.weights[name] for name in names}
    first = f"base_model.model.{names[0]}"
    saved[first.replace(".weight", ".modules_to_save.default.weight")] = saved.pop(first)
    base = tiny.write(model, tmp_path / "base.gguf")
    found = tensors_of(convert(peft(tmp_path / "folder", saved), base).target)
    model.weights |= {name: other.weights[name] for name in names}
    assert found == tensors_of(tiny.write(model, tmp_path / "expected.gguf"))


def test_lora_on_embeddings(tmp_path: Path, convert: Convert) -> None:
    """PEFT stores them the other way round, and GGUF's own form differently again."""
    model = tiny.make("llama")
    dice = np.random.default_rng(3)
    a, b = (dice.standard_normal(s).astype(np.float32) for s in ((4, tiny.VOCABULARY), (model.width, 4)))
    at = "base_model.model.model.embed_tokens.lora_embedding_"
    base = tiny.write(model, tmp_path / "base.gguf")
    found = tensors_of(convert(peft(tmp_path / "folder", {f"{at}A": a, f"{at}B": b}), base).target)
    expected = model.weights["model.embed_tokens.weight"] + 2 * (b @ a).T
    got = np.frombuffer(found["token_embd.weight"], "f4").reshape(expected.shape)
    assert np.allclose(got, expected, atol=1e-5)
    writer = gguf.GGUFWriter(tmp_path / "lora.gguf", "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    writer.add_tensor("token_embd.weight.lora_a", np.ascontiguousarray(a.T))
    writer.add_tensor("token_embd.weight.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    runtime = tiny.logits(base, TOKENS, [(tmp_path / "lora.gguf", 1.0)])
    assert np.abs(tiny.logits(tmp_path / "out.gguf", TOKENS) - runtime).max() <= 1e-3 * range_of(runtime)
    folder = tiny.bundle(tmp_path / "second", **{"model_lora.gguf": (tmp_path / "lora.gguf").read_bytes()})
    again = tensors_of(convert(folder, base, "again.gguf").target)
    assert np.allclose(np.frombuffer(again["token_embd.weight"], "f4").reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_names_are_those_of_the_gguf_package(arch: str) -> None:
    table = gguf.get_tensor_name_map(NAMES[arch], 2)
    architecture = ARCHITECTURES[arch]
    modules = [f"model.layers.1.{module}" for module in architecture.modules]
    for module in [*modules, "model.embed_tokens", "model.norm"]:
        assert architecture.module(module) == table.get_name(module)
        assert architecture.module(f"base_model.model.{module}") == table.get_name(module)
    assert architecture.module("lm_head") == "output"
    for stranger in (
        "model.layers.1.mlp.experts.0.w1",
        "vision_tower.layers.1.mlp.up_proj",
        "model.layers.01.mlp.up_proj",
    ):
        assert architecture.module(stranger) is None


def test_rows_are_permuted_as_the_definition_says() -> None:
    rows = np.arange(48, dtype=np.float32).reshape(24, 2)
    assert np.array_equal(permute_rows(rows, 3), tiny.permute(rows, 3))
    assert list(permute_rows(np.arange(8, dtype=np.float32), 1)) == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read from getrusage")
def test_memory_doesn_t_grow_with_the_tensors(tmp_path: Path) -> None:
    """Matrices of 64 MiB as float32 are merged in half of three times that."""
    import subprocess

    model = tiny.make("llama", width=64, inner=1 << 10, layers=1)
    model.inner = 1 << 18
    for name in ("gate", "up", "down"):
        key = f"model.layers.0.mlp.{name}_proj.weight"
        model.weights[key] = np.tile(model.weights[key], (1, 256) if name == "down" else (256, 1))
    tiny.write(model, tmp_path / "base.gguf", "F16")
    peft(tmp_path / "folder", {k: v for k, v in tiny.lora(model).items() if "mlp" in k})
    code = (
        "import resource, sys; from pathlib import Path; from gguf_tools.bundle_converter import BundleConverter;"
        "import numpy, gguf; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "BundleConverter(*map(Path, sys.argv[1:])).run();"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    paths = [str(tmp_path / name) for name in ("folder", "base.gguf", "out.gguf")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 100e6


def test_unknown_architecture_names_the_known_ones(tmp_path: Path, convert: Convert) -> None:
    model = tiny.make("llama")
    base = tiny.write(model, tmp_path / "base.gguf")
    base.write_bytes(base.read_bytes().replace(b"llama", b"alpha"))
    with pytest.raises(errors.ManyProblems, match="'alpha' isn't known here; known are llama, smollm3"):
        convert(peft(tmp_path / "folder", tiny.lora(model)), base)
