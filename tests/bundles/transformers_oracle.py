"""The logits of transformers with PEFT's adapter on top, for a tiny model. Needs torch, transformers and peft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from . import tiny


def peft_logits(
    model: tiny.Tiny, lora: dict[str, tiny.Floats], settings: dict[str, Any], folder: Path, tokens: list[int]
) -> tiny.Floats:
    """Logits after each token, float32 [tokens, vocabulary]; the files are made in `folder`."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    kinds = {"gemma3": "gemma3_text"}
    config: dict[str, Any] = {
        "model_type": kinds.get(model.arch, model.arch),
        "vocab_size": tiny.VOCABULARY,
        "hidden_size": model.width,
        "intermediate_size": model.inner,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.size,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 128,
        "tie_word_embeddings": model.tied,
        "attn_implementation": "eager",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if model.arch.startswith("gemma"):
        config |= {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh", "sliding_window": 64}
        config |= {"query_pre_attn_scalar": model.size, "rope_local_base_freq": 10000.0}
        config |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0} if model.arch == "gemma2" else {}
    if model.arch == "smollm3":
        config |= {"no_rope_layers": [1] * model.layers, "use_sliding_window": False}
    base = folder / "base"
    base.mkdir(parents=True)
    (base / "config.json").write_text(json.dumps(config))
    tiny.safetensors(base / "model.safetensors", model.weights, {"format": "pt"})
    adapter = folder / "adapter"
    adapter.mkdir()
    targets = sorted({name.split(".")[-1] for name in tiny.modules(model)})
    full = {**settings, "target_modules": targets, "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base)}
    (adapter / "adapter_config.json").write_text(json.dumps(full))
    tiny.safetensors(adapter / "adapter_model.safetensors", lora, {"format": "pt"})
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
    with torch.no_grad():
        found: tiny.Floats = loaded(torch.tensor([tokens])).logits[0].float().numpy().astype(np.float32)
    return found
