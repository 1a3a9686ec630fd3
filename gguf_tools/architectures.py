"""What the tensors of Hugging Face models are called in GGUF, and how their rows stand there.

As llama.cpp's converters have it (`conversion/*.py`, `gguf-py/gguf/tensor_mapping.py` in ggml-org/llama.cpp); a test
compares the names with the `gguf` package's own table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gguf_tools import keys
from gguf_tools.records import GgufInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["ARCHITECTURES", "Architecture", "permute_rows"]

_ATTENTION = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
_FEED_FORWARD = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_GEMMA2_NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_LLAMA = {**_ATTENTION, **_FEED_FORWARD, **_NORMS}
_PHI3 = {
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    **_NORMS,
}
_TOP = {"embed_tokens": "token_embd", "norm": "output_norm"}

# What stands before the layers' names in the files of different model classes.
_PREFIX = re.compile(r"(?:base_model\.model\.)?(?:model\.language_model\.|language_model\.model\.|model\.)?")
_LAYER = re.compile(r"layers\.(0|[1-9][0-9]{0,3})\.(.+)")


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one GGUF architecture names and stores a Hugging Face model's tensors.

    Attributes:
        modules: name of a layer's module to its name in GGUF.
        permuted: rows of Q and K are reordered for the rotary embedding.
        norm_shift: what the converter adds to the weights of norms.
    """

    modules: Mapping[str, str]
    permuted: bool = False
    norm_shift: float = 0.0
    _top: Mapping[str, str] = field(default_factory=lambda: _TOP)

    def module(self, name: str) -> str | None:
        """GGUF name of a module (without `.weight`), such as `blk.0.attn_q`; None if it isn't known."""
        bare = name[_PREFIX.match(name).end() :]  # type: ignore[union-attr]  # matches the empty text too
        if bare == "lm_head":
            return "output"
        if bare in self._top:
            return self._top[bare]
        found = _LAYER.fullmatch(bare)
        if found is None or found[2] not in self.modules:
            return None
        return f"blk.{found[1]}.{self.modules[found[2]]}"

    def is_shifted(self, target: str) -> bool:
        """Whether the converter adds `norm_shift` to that tensor."""
        return self.norm_shift != 0.0 and target.endswith("norm.weight")

    def head_count(self, info: GgufInfo, target: str) -> int | None:
        """Heads by which the rows of a tensor are reordered; None where they stand as they were."""
        if not self.permuted:
            return None
        if re.fullmatch(r"blk\.\d+\.attn_q\.(weight|bias)", target):
            return info.arch_number(keys.ARCH_HEAD_COUNT)
        if re.fullmatch(r"blk\.\d+\.attn_k\.(weight|bias)", target):
            return info.arch_number(keys.ARCH_HEAD_COUNT_KV) or info.arch_number(keys.ARCH_HEAD_COUNT)
        return None


# By `general.architecture`. Mistral, SmolLM and SmolLM2 are stored as llama.
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(_LLAMA, permuted=True),
    "smollm3": Architecture(_LLAMA, permuted=True),
    "qwen2": Architecture(_LLAMA),
    "qwen3": Architecture({**_LLAMA, **_HEAD_NORMS}),
    "gemma": Architecture(_LLAMA, norm_shift=1.0),
    "gemma2": Architecture({**_ATTENTION, **_FEED_FORWARD, **_GEMMA2_NORMS}, norm_shift=1.0),
    "gemma3": Architecture({**_ATTENTION, **_FEED_FORWARD, **_GEMMA2_NORMS, **_HEAD_NORMS}, norm_shift=1.0),
    "phi3": Architecture(_PHI3),
}


def permute_rows(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of each head from two halves to pairs, as llama.cpp's rotary embedding has them.

    Args:
        values: [rows, …], the rows a multiple of 2 · heads.
        heads: number of heads.
    """
    rows = values.shape[0]
    halves = values.reshape(heads, 2, rows // heads // 2, *values.shape[1:])
    permuted: npt.NDArray[np.float32] = halves.swapaxes(1, 2).reshape(values.shape)
    return permuted
