"""The forward pass of llama and qwen2 as Hugging Face defines it, in numpy: slow, plain, without GGUF's row order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .tiny import Tiny

Floats = npt.NDArray[np.float32]


def logits(model: Tiny, tokens: list[int]) -> Floats:
    """Logits after each token, float64 [tokens, vocabulary]."""
    w = {name: values.astype(np.float64) for name, values in model.weights.items()}
    x = w["model.embed_tokens.weight"][tokens]
    n, size = len(tokens), model.size
    angles = np.outer(np.arange(n), 10000.0 ** (-np.arange(0, size, 2) / size))
    cos, sin = (np.concatenate([f(angles)] * 2, axis=1)[None] for f in (np.cos, np.sin))
    mask = np.triu(np.full((n, n), -np.inf), 1)

    def norm(values: Floats, weight: Floats) -> Floats:
        return values / np.sqrt((values**2).mean(-1, keepdims=True) + 1e-6) * weight

    def rotated(values: Floats) -> Floats:
        half = size // 2
        turned = np.concatenate([-values[..., half:], values[..., :half]], axis=-1)
        return values * cos + turned * sin

    for layer in range(model.layers):
        at = f"model.layers.{layer}."

        def linear(name: str, values: Floats, at: str = at) -> Floats:
            return values @ w[f"{at}{name}.weight"].T + w.get(f"{at}{name}.bias", 0.0)

        h = norm(x, w[f"{at}input_layernorm.weight"])
        q, k, v = (
            linear(f"self_attn.{name}_proj", h).reshape(n, -1, size).transpose(1, 0, 2) for name in ("q", "k", "v")
        )
        q, k = rotated(q), rotated(k)
        k, v = (np.repeat(one, model.heads // model.kv_heads, axis=0) for one in (k, v))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(size) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + linear("self_attn.o_proj", (scores @ v).transpose(1, 0, 2).reshape(n, -1))
        h = norm(x, w[f"{at}post_attention_layernorm.weight"])
        gate = linear("mlp.gate_proj", h)
        x = x + linear("mlp.down_proj", gate / (1 + np.exp(-gate)) * linear("mlp.up_proj", h))
    x = norm(x, w["model.norm.weight"])
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return x @ head.T
