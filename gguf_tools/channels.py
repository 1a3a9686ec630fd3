"""Channel adapters: routing at the level of heads, as LoRA files that llama.cpp applies at run time.

A gain on a head scales what the head adds to the stream: W_o · diag(gain). Written as a low-rank change that is
W_o · diag(gain - 1) on the columns of the gated heads, and exactly so: left = these columns, right = gain - 1 on the
diagonal. The rank is the number of gated heads times the head's size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gguf_tools import keys
from gguf_tools.bundle_folder import Channel
from gguf_tools.entries import text_entry
from gguf_tools.errors import BadLora, GgufError
from gguf_tools.lora import Lora, check_shapes, check_weights
from gguf_tools.lora_gguf import Factors, write_gguf_lora
from gguf_tools.read_lora import is_gguf, read_lora
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

__all__ = ["check_channel", "gate_factors", "gate_tensor", "write_channel"]


class Weights(Protocol):
    """Where the values of a model's tensors come from."""

    def values(self, name: str) -> Floats:
        """A tensor as float32 [rows, columns]."""


def gate_tensor(layer: int) -> str:
    """The attention output of a layer."""
    return f"blk.{layer}.attn_output.weight"


def gate_factors(weight: Floats, gains: Mapping[int, float], heads: int) -> Factors | None:
    """The change that multiplies heads by their gains; None where every gain is 1.

    Args:
        weight: the attention output W_o, [rows, heads · head size].
        gains: by head.
        heads: number of heads.
    """
    import numpy as np

    size = weight.shape[1] // heads
    gated = [(head, gain) for head, gain in sorted(gains.items()) if gain != 1.0]
    if not gated:
        return None
    columns = np.concatenate([np.arange(head * size, (head + 1) * size) for head, _ in gated])
    right = np.zeros((columns.size, weight.shape[1]), np.float32)
    right[np.arange(columns.size), columns] = np.repeat([np.float32(gain - 1.0) for _, gain in gated], size)
    return Factors(np.ascontiguousarray(weight[:, columns]), right)


def check_channel(channel: Channel, base: GgufInfo) -> list[str]:
    """What is wrong with a channel's adapter and gates for this base, a line each."""
    problems = []
    heads = base.arch_number(keys.ARCH_HEAD_COUNT) or 0
    tensors = {tensor.name: tensor for tensor in base.tensors}
    for layer, gains in channel.head_gates.items():
        where = f"channel {channel.name}: head_gates.{layer}"
        tensor = tensors.get(gate_tensor(layer))
        if tensor is None or len(tensor.shape) != 2 or not heads or tensor.shape[0] % heads:
            problems.append(f"{where}: the base has no attention output in layer {layer}")
            continue
        problems += [f"{where}.{head}: the base has the heads 0 to {heads - 1}" for head in gains if head >= heads]
    if channel.adapter is not None:
        try:
            problems += [f"channel {channel.name}: {line}" for line in check_weights(_learned(channel.adapter, base))]
            made_with = _gates_inside(channel.adapter)
            if made_with is not None and made_with != _spelled(channel.head_gates):
                problems.append(
                    f"channel {channel.name}: {channel.adapter.name} was made with other head_gates ({made_with}); "
                    "put the learned adapter there, or remove it"
                )
        except GgufError as error:
            problems.append(f"channel {channel.name}: {error}")
    return problems


def write_channel(channel: Channel, base: GgufInfo, weights: Weights, out: Path) -> bool:
    """Write a channel's adapter: its learned LoRA and its head gates in one file.

    A GGUF LoRA without gates, or one whose gates are in it already, is copied byte for byte.

    Args:
        channel: what to write, checked by `check_channel`.
        base: the base model's header.
        weights: gives the weights that the adapter will act on.
        out: the file.

    Returns:
        False if there was nothing to write: every gain is 1.
    """
    if (
        channel.adapter is not None
        and is_gguf(channel.adapter)
        and (not channel.head_gates or _gates_inside(channel.adapter) == _spelled(channel.head_gates))
    ):
        out.write_bytes(channel.adapter.read_bytes())
        return True
    factors: dict[str, Factors] = {}
    if channel.adapter is not None:
        for target, delta in _learned(channel.adapter, base).deltas.items():
            factors[target] = Factors(delta.left(), delta.right() * delta.scale)
    heads = base.arch_number(keys.ARCH_HEAD_COUNT) or 1
    for layer, gains in channel.head_gates.items():
        target = gate_tensor(layer)
        gates = gate_factors(weights.values(target), gains, heads)
        if gates is not None:
            factors[target] = _both(factors[target], gates) if target in factors else gates
    if not factors:
        return False
    extra = [text_entry(keys.ADAPTER_HEAD_GATES, _spelled(channel.head_gates))] if channel.head_gates else []
    write_gguf_lora(out, base.architecture, factors, extra, name=f"channel {channel.name}")
    return True


def _both(one: Factors, other: Factors) -> Factors:
    """The sum of two changes as one."""
    import numpy as np

    return Factors(np.hstack([one.left, other.left]), np.vstack([one.right, other.right]))


def _learned(path: Path, base: GgufInfo) -> Lora:
    lora = read_lora(path, base)
    check_shapes(lora, base)
    if lora.replacements or any(target in ("token_embd.weight", "output.weight") for target in lora.deltas):
        raise BadLora(
            path,
            "changes embeddings or brings whole tensors, which an adapter at run time can't",
            remedy="train a channel's adapter on attention and feed-forward layers only",
        )
    return lora


def _gates_inside(path: Path) -> str | None:
    """The gates that were made part of an adapter, as they are spelled there."""
    return read_gguf(path).text(keys.ADAPTER_HEAD_GATES) if is_gguf(path) else None


def _spelled(gates: Mapping[int, Mapping[int, float]]) -> str:
    return json.dumps({str(layer): {str(head): gain for head, gain in row.items()} for layer, row in gates.items()})
