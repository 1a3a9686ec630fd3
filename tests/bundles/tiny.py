"""Tiny random models as Hugging Face names them, their GGUF files, and LoRAs for them.

Nothing here uses the code under test.
Names come from the `gguf` package, the order of rows from the definition that llama.cpp's converter uses.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
VOCABULARY = 96
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "smollm3")


@dataclass
class Tiny:
    """A model: Hugging Face names to float32 arrays, and what its GGUF says of it."""

    arch: str
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    size: int = 16
    inner: int = 96
    layers: int = 2
    tied: bool = False
    weights: dict[str, Floats] = field(default_factory=dict)

    @property
    def permuted(self) -> bool:
        return self.arch in ("llama", "smollm3")


def modules(model: Tiny) -> dict[str, tuple[int, int]]:
    """Linear modules of a layer: rows and columns."""
    q, kv, d, ff = model.heads * model.size, model.kv_heads * model.size, model.width, model.inner
    if model.arch == "phi3":
        return {
            "self_attn.qkv_proj": (q + 2 * kv, d),
            "self_attn.o_proj": (d, q),
            "mlp.gate_up_proj": (2 * ff, d),
            "mlp.down_proj": (d, ff),
        }
    return {
        "self_attn.q_proj": (q, d),
        "self_attn.k_proj": (kv, d),
        "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, q),
        "mlp.gate_proj": (ff, d),
        "mlp.up_proj": (ff, d),
        "mlp.down_proj": (d, ff),
    }


def make(arch: str, *, seed: int = 0, **sizes: Any) -> Tiny:
    """A model with random weights."""
    model = Tiny(arch, **sizes)
    if arch.startswith("gemma"):
        model.tied = True
    dice = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Floats:
        return (dice.standard_normal((rows, columns)) * 0.6 / np.sqrt(columns)).astype(np.float32)

    def norm(length: int) -> Floats:
        around = 0.0 if arch.startswith("gemma") else 1.0
        return (around + 0.1 * dice.standard_normal(length)).astype(np.float32)

    w = model.weights
    w["model.embed_tokens.weight"] = matrix(VOCABULARY, model.width) * 4
    w["model.norm.weight"] = norm(model.width)
    if not model.tied:
        w["lm_head.weight"] = matrix(VOCABULARY, model.width) * 4
    for layer in range(model.layers):
        at = f"model.layers.{layer}."
        for name, shape in modules(model).items():
            w[f"{at}{name}.weight"] = matrix(*shape)
        norms = ["input_layernorm", "post_attention_layernorm"]
        if arch in ("gemma2", "gemma3"):
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for name in norms:
            w[f"{at}{name}.weight"] = norm(model.width)
        if arch in ("qwen3", "gemma3"):
            for name in ("q_norm", "k_norm"):
                w[f"{at}self_attn.{name}.weight"] = norm(model.size)
        if arch == "qwen2":
            for name in ("q_proj", "k_proj", "v_proj"):
                rows = modules(model)[f"self_attn.{name}"][0]
                w[f"{at}self_attn.{name}.bias"] = (0.1 * dice.standard_normal(rows)).astype(np.float32)
    return model


def gguf_name(model: Tiny, name: str) -> str:
    arch = next(a for a, text in gguf.MODEL_ARCH_NAMES.items() if text == model.arch)
    found = gguf.get_tensor_name_map(arch, model.layers).get_name(name, (".weight", ".bias"))
    assert found is not None, name
    return found


def permute(rows: Floats, heads: int) -> Floats:
    """Row by row: of each head, row i of the first half and of the second half come after each other."""
    size = rows.shape[0] // heads
    order = [h * size + half * (size // 2) + i for h in range(heads) for i in range(size // 2) for half in (0, 1)]
    return rows[order]


def stored(model: Tiny, name: str, values: Floats) -> Floats:
    """Values as the GGUF has them."""
    if model.permuted and "q_proj" in name:
        return permute(values, model.heads)
    if model.permuted and "k_proj" in name:
        return permute(values, model.kv_heads)
    if model.arch.startswith("gemma") and name.endswith("norm.weight"):
        return values + np.float32(1)
    return values


def write(model: Tiny, path: Path, kind: str = "F32") -> Path:
    """The model's GGUF, its matrices of that type."""
    writer = gguf.GGUFWriter(path, model.arch)
    writer.add_name(f"tiny {model.arch}")
    writer.add_license("cc0-1.0")
    writer.add_block_count(model.layers)
    writer.add_context_length(128)
    writer.add_embedding_length(model.width)
    writer.add_feed_forward_length(model.inner)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(model.size)
    writer.add_value_length(model.size)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(model.size)
    writer.add_vocab_size(VOCABULARY)
    if model.arch in ("gemma2", "gemma3"):
        writer.add_sliding_window(64)
    writer.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>", "<|endoftext|>"]
    tokens += [f"▁{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(VOCABULARY - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(VOCABULARY)])
    writer.add_token_types([2, 3, 3] + [1] * (VOCABULARY - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, values in model.weights.items():
        data = stored(model, name, values)
        raw = gguf.GGMLQuantizationType[kind] if data.ndim > 1 else gguf.GGMLQuantizationType.F32
        made = gguf.quants.quantize(data, raw)
        writer.add_tensor(gguf_name(model, name), made, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def lora(model: Tiny, *, rank: int = 4, seed: int = 7, strength: float = 0.3) -> dict[str, Floats]:
    """PEFT tensors that change every linear module of every layer."""
    dice = np.random.default_rng(seed)
    found = {}
    for layer in range(model.layers):
        for name, (rows, columns) in modules(model).items():
            at = f"base_model.model.model.layers.{layer}.{name}"
            a = dice.standard_normal((rank, columns)) / np.sqrt(columns)
            found[f"{at}.lora_A.weight"] = a.astype(np.float32)
            found[f"{at}.lora_B.weight"] = (strength * dice.standard_normal((rows, rank))).astype(np.float32)
    return found


def safetensors(path: Path, tensors: dict[str, npt.NDArray[Any]], metadata: dict[str, str] | None = None) -> Path:
    """A safetensors file."""
    names = {np.dtype("f4"): "F32", np.dtype("f2"): "F16", np.dtype("f8"): "F64", np.dtype("i8"): "I64"}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values).tobytes()
        place = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": names[values.dtype], "shape": list(values.shape), "data_offsets": place}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def config(**changes: Any) -> dict[str, Any]:
    """An `adapter_config.json`."""
    return {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": False, "fan_in_fan_out": False, **changes}


def runtime_lora(model: Tiny, tensors: dict[str, Floats], path: Path, alpha: float) -> Path:
    """The same LoRA for llama.cpp to apply at run time."""
    writer = gguf.GGUFWriter(path, model.arch)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, values in tensors.items():
        module, half = name.removeprefix("base_model.model.").removesuffix(".weight").rsplit(".lora_", 1)
        data = stored(model, module, values) if half == "B" else values
        writer.add_tensor(f"{gguf_name(model, module)}.weight.lora_{half.lower()}", np.ascontiguousarray(data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def merged(model: Tiny, tensors: dict[str, Floats], scale: float) -> Tiny:
    """The model with the LoRA added to its weights."""
    weights = {name: values.copy() for name, values in model.weights.items()}
    for name, values in tensors.items():
        if ".lora_A" in name:
            module = name.removeprefix("base_model.model.").split(".lora_A")[0]
            weights[f"{module}.weight"] += np.float32(scale) * tensors[name.replace("lora_A", "lora_B")] @ values
    return Tiny(**{**vars(model), "weights": weights})


def bundle(folder: Path, **files: Any) -> Path:
    """The smallest bundle folder; more files by name, with `/` for folders."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ltm_overlay_config.yaml").write_text("ltm_overlay:\n  version: 1\n  name: tiny\n")
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def logits(path: Path, tokens: list[int], adapters: list[tuple[Path, float]] | None = None) -> Floats:
    """llama.cpp's logits after each token, float32 [tokens, vocabulary], with adapters applied at run time."""
    with _silence():
        return _logits(path, tokens, adapters or [])


def _logits(path: Path, tokens: list[int], adapters: list[tuple[Path, float]]) -> Floats:
    import ctypes

    import llama_cpp

    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.use_mmap = False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"llama.cpp refuses {path}"
    options = llama_cpp.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_ubatch = 256, 256, 256
    options.n_threads = options.n_threads_batch = 2
    options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
    options.flash_attn_type = 0
    context = llama_cpp.llama_init_from_model(model, options)
    assert context
    loaded = []
    try:
        for file, _ in adapters:
            adapter = llama_cpp.llama_adapter_lora_init(model, str(file).encode())
            assert adapter, f"llama.cpp refuses the adapter {file}"
            loaded.append(adapter)
        if loaded:
            scales = [scale for _, scale in adapters]
            array = (llama_cpp.llama_adapter_lora_p_ctypes * len(loaded))(*loaded)
            weights = (ctypes.c_float * len(loaded))(*scales)
            assert llama_cpp.llama_set_adapters_lora(context, array, len(loaded), weights) == 0
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        assert llama_cpp.llama_decode(context, batch) == 0
        size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        rows = [llama_cpp.llama_get_logits_ith(context, i) for i in range(len(tokens))]
        found = np.stack([np.ctypeslib.as_array(row, (size,)) for row in rows])
        llama_cpp.llama_batch_free(batch)
        return found
    finally:
        llama_cpp.llama_free(context)
        for adapter in loaded:
            llama_cpp.llama_adapter_lora_free(adapter)
        llama_cpp.llama_model_free(model)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep llama.cpp from writing its log; whoever had it has it again afterwards."""
    import ctypes

    import llama_cpp

    @llama_cpp.llama_log_callback
    def quiet(level: int, text: bytes, data: Any) -> None:
        pass

    before, data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
    try:
        yield
    finally:
        llama_cpp.llama_log_set(before, data)
