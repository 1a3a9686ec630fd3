"""Head gates as an adapter: the same as the gates multiplied into W_o, on a tiny model and on the demo model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_tools import errors
from gguf_tools.bundle_reader import BundleReader
from gguf_tools.channels import gate_factors, gate_tensor
from gguf_tools.extract import extract
from gguf_tools.quants import dequantise
from gguf_tools.reader import read_gguf

from . import tiny
from .conftest import TOKENS, Convert

FIELD = "field:\n  version: 1\n  zones:\n    poet:\n      kind: channel\n{}    will: {{kind: will}}\n"
GATES = {0: {0: 1.5, 2: 0.0}, 1: {3: -0.5}}
GATES_YAML = "      head_gates: {0: {0: 1.5, 2: 0.0, 1: 1}, 1: {3: -0.5}}\n"


def field(lines: str) -> bytes:
    return FIELD.format(lines).encode()


def gated(model: tiny.Tiny, gates: dict[int, dict[int, float]], strength: float = 1.0) -> tiny.Tiny:
    """The model with each gated head's columns of W_o multiplied."""
    weights = {name: values.copy() for name, values in model.weights.items()}
    for layer, heads in gates.items():
        for head, gain in heads.items():
            columns = slice(head * model.size, (head + 1) * model.size)
            weights[f"model.layers.{layer}.self_attn.o_proj.weight"][:, columns] *= 1 + strength * (gain - 1)
    return tiny.Tiny(**{**vars(model), "weights": weights})


def close(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], limit: float = 1e-5) -> bool:
    return bool(np.abs(found - expected).max() <= limit * np.ptp(expected))


def test_gates_are_multiplied_heads(tmp_path: Path, convert: Convert) -> None:
    model = tiny.make("llama")
    base = tiny.write(model, tmp_path / "base.gguf")
    folder = tiny.bundle(tmp_path / "folder", **{"field_architecture.yaml": field(GATES_YAML)})
    target = convert(folder, base).target
    adapter = BundleReader.open(target).channels["poet"]
    plain = tiny.logits(target, TOKENS)
    for scale in (1.0, 0.5, 2.0):
        expected = tiny.logits(tiny.write(gated(model, GATES, scale), tmp_path / "gated.gguf"), TOKENS)
        assert close(tiny.logits(target, TOKENS, [(adapter, scale)]), expected), scale
    assert np.array_equal(tiny.logits(target, TOKENS, [(adapter, 0.0)]), plain)
    assert not close(expected, plain, 0.01)
    # Scales add up: two halves are one whole.
    whole = tiny.logits(target, TOKENS, [(adapter, 1.0)])
    assert close(tiny.logits(target, TOKENS, [(adapter, 0.25), (adapter, 0.75)]), whole)


def test_rank_is_that_of_the_gated_heads(tmp_path: Path, convert: Convert) -> None:
    model = tiny.make("llama")
    folder = tiny.bundle(tmp_path / "folder", **{"field_architecture.yaml": field(GATES_YAML)})
    target = convert(folder, tiny.write(model, tmp_path / "base.gguf")).target
    shapes = {t.name: t.shape for t in read_gguf(BundleReader.open(target).channels["poet"]).tensors}
    assert shapes == {
        "blk.0.attn_output.weight.lora_a": (64, 32),
        "blk.0.attn_output.weight.lora_b": (32, 64),
        "blk.1.attn_output.weight.lora_a": (64, 16),
        "blk.1.attn_output.weight.lora_b": (16, 64),
    }


def test_gates_act_on_the_merged_weights(tmp_path: Path, convert: Convert) -> None:
    """The adapter runs over the bundle, not over the base: its W_o has the LoRA in it."""
    model = tiny.make("llama")
    lora = tiny.lora(model)
    files = {"field_architecture.yaml": field(GATES_YAML), "adapter_config.json": tiny.config()}
    folder = tiny.bundle(tmp_path / "folder", **files)
    tiny.safetensors(folder / "adapter_model.safetensors", lora)
    target = convert(folder, tiny.write(model, tmp_path / "base.gguf", "Q8_0")).target
    adapter = BundleReader.open(target).channels["poet"]
    info = read_gguf(target)
    tensor = next(t for t in info.tensors if t.name == gate_tensor(1))
    written = dequantise(info.stamp.read(tensor.offset, tensor.nbytes), tensor.type, 64)
    made = read_gguf(adapter)
    left = next(t for t in made.tensors if t.name == f"{gate_tensor(1)}.lora_b")
    assert np.array_equal(dequantise(made.stamp.read(left.offset, left.nbytes), left.type, 16), written[:, 48:])


def test_learned_and_gated_in_one_adapter(tmp_path: Path, convert: Convert) -> None:
    model = tiny.make("llama")
    base = tiny.write(model, tmp_path / "base.gguf")
    learned = tiny.lora(model)
    own = "      adapter: channels/learned.gguf\n"
    folder = tiny.bundle(tmp_path / "folder", **{"field_architecture.yaml": field(own + GATES_YAML)})
    (folder / "channels").mkdir()
    lora = tiny.runtime_lora(model, learned, folder / "channels" / "learned.gguf", alpha=8)
    target = convert(folder, base).target
    adapter = BundleReader.open(target).channels["poet"]
    both = tiny.merged(gated(model, GATES), learned, 2.0)
    expected = tiny.logits(tiny.write(both, tmp_path / "both.gguf"), TOKENS)
    assert close(tiny.logits(target, TOKENS, [(adapter, 1.0)]), expected)
    # Without gates the file is the learned one, byte for byte.
    (folder / "field_architecture.yaml").write_bytes(field(own))
    plain = BundleReader.open(convert(folder, base, "plain.gguf").target).channels["poet"]
    assert plain.read_bytes() == lora.read_bytes()


@pytest.mark.parametrize("named", ["poet/adapter_model.safetensors", "poet"])
def test_peft_adapter_becomes_gguf(named: str, tmp_path: Path, convert: Convert) -> None:
    model = tiny.make("qwen2")
    base = tiny.write(model, tmp_path / "base.gguf")
    own = f"      adapter: {named}\n"
    files = {"field_architecture.yaml": field(own), "poet/adapter_config.json": tiny.config(use_rslora=True)}
    folder = tiny.bundle(tmp_path / "folder", **files)
    tiny.safetensors(folder / "poet" / "adapter_model.safetensors", tiny.lora(model))
    target = convert(folder, base).target
    adapter = BundleReader.open(target).channels["poet"]
    expected = tiny.logits(tiny.write(tiny.merged(model, tiny.lora(model), 4.0), tmp_path / "m.gguf"), TOKENS)
    assert close(tiny.logits(target, TOKENS, [(adapter, 1.0)]), expected, 1e-4)
    extract(target, tmp_path / "again")
    assert convert(tmp_path / "again", target, "again.gguf").target.read_bytes() == target.read_bytes()


@pytest.mark.parametrize("lines", [GATES_YAML, "      adapter: a/b.gguf\n" + GATES_YAML, "      adapter: a/b.gguf\n"])
def test_extracted_adapters_give_the_same_bundle(lines: str, tmp_path: Path, convert: Convert) -> None:
    """Gates that are in an adapter already aren't applied twice."""
    model = tiny.make("llama")
    folder = tiny.bundle(tmp_path / "folder", **{"field_architecture.yaml": field(lines)})
    (folder / "a").mkdir()
    tiny.runtime_lora(model, tiny.lora(model), folder / "a" / "b.gguf", alpha=8)
    first = convert(folder, tiny.write(model, tmp_path / "base.gguf"), "first.gguf").target
    extract(first, tmp_path / "again")
    second = convert(tmp_path / "again", first, "second.gguf").target
    assert first.read_bytes() == second.read_bytes()
    one, two = (BundleReader.open(p).channels["poet"].read_bytes() for p in (first, second))
    assert one == two
    if "adapter" in lines and "gates" in lines:
        changed = field(lines.replace("1.5", "1.25"))
        (tmp_path / "again" / "field_architecture.yaml").write_bytes(changed)
        with pytest.raises(errors.ManyProblems, match="was made with other head_gates"):
            convert(tmp_path / "again", first, "third.gguf")


WRONG = {
    "      head_gates: {7: {0: 2}}\n": "no attention output in layer 7",
    "      head_gates: {0: {4: 2}}\n": "head_gates.0.4: the base has the heads 0 to 3",
    "      head_gates: {0: {0: .nan}}\n": "a gain from -16 to 16",
    "      head_gates: {0: {x: 2}}\n": "a head's number",
    "      head_gates: [1]\n": "must be {layer: {head: gain}}",
    "      adapter: ../x.gguf\n": "no path inside the folder",
    "      adapter: missing.gguf\n": "missing.gguf: is missing",
    "      adapter: ltm_overlay_config.yaml\n": "doesn't start like a safetensors file",
}


@pytest.mark.parametrize("lines", WRONG)
def test_wrong_channels_are_refused(lines: str, tmp_path: Path, convert: Convert) -> None:
    folder = tiny.bundle(tmp_path / "folder", **{"field_architecture.yaml": field(lines)})
    with pytest.raises(errors.ManyProblems) as caught:
        convert(folder, tiny.write(tiny.make("llama"), tmp_path / "base.gguf"))
    assert WRONG[lines] in str(caught.value)


def test_gains_of_one_change_nothing() -> None:
    assert gate_factors(np.ones((4, 8), np.float32), {0: 1.0}, 2) is None


@pytest.mark.needs_model
def test_gates_on_the_demo_model(demo_path: Path, tmp_path: Path, convert: Convert) -> None:
    """Three heads in two layers: the adapter against W_o with these columns multiplied, all in float16."""
    plain = convert(tiny.bundle(tmp_path / "plain"), demo_path, "plain.gguf", outtype="F32").target
    lines = "      head_gates: {5: {0: 1.6, 3: 0.2}, 20: {8: 0.0}}\n"
    folder = tiny.bundle(tmp_path / "folder", **{"field_architecture.yaml": field(lines)})
    target = convert(folder, plain, "gated.gguf").target
    adapter = BundleReader.open(target).channels["poet"]
    tokens = [504, 3575, 282, 260, 905, 314, 253, 1123, 28, 284, 338, 314, 1528]
    before = tiny.logits(target, tokens)
    assert np.array_equal(tiny.logits(target, tokens, [(adapter, 0.0)]), before)
    multiplied = tmp_path / "multiplied.gguf"
    raw = bytearray(plain.read_bytes())
    for layer, gains in {5: {0: 1.6, 3: 0.2}, 20: {8: 0.0}}.items():
        tensor = next(t for t in read_gguf(plain).tensors if t.name == gate_tensor(layer))
        values = np.frombuffer(raw, "<f4", tensor.elements, tensor.offset).reshape(576, 576).copy()
        for head, gain in gains.items():
            values[:, head * 64 : (head + 1) * 64] *= np.float32(gain)
        raw[tensor.offset : tensor.offset + tensor.nbytes] = values.tobytes()
    multiplied.write_bytes(raw)
    expected = tiny.logits(multiplied, tokens)
    found = tiny.logits(target, tokens, [(adapter, 1.0)])
    assert close(found, expected, 1e-5) and not close(expected, before, 0.01)
    halves = tiny.logits(target, tokens, [(adapter, 0.5), (adapter, 0.5)])
    assert close(halves, expected, 1e-5)
