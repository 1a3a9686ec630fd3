"""Head gates: for one channel, a gain on each attention head that makes its kind of scene likelier.

A gain multiplies what a head adds to the stream: the input of the attention's output projection, head by head. The
model itself stays as it is. Only the heads that matter most keep a gain, so that the adapter that `ltm-edge convert`
makes of them is of low rank.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ltm_edge.errors import SchemaError, TrainingError
from ltm_edge.schemas.field import parse_field
from ltm_edge.training.model import Net
from ltm_edge.training.packing import Row

if TYPE_CHECKING:
    import torch

__all__ = ["Gains", "gated", "learn_gates", "put_gates"]

Gains = Mapping[int, Mapping[int, float]]
"""Gain by layer, then by head; heads that aren't named have 1."""

_LEAST, _MOST = 0.0, 3.0
_NOTABLE = 0.02  # a gain this close to 1 isn't worth a head's columns in the adapter


def learn_gates(
    net: Net, batches: Sequence[Sequence[Row]], *, keep: int = 8, rate: float = 0.05, epochs: int = 1
) -> dict[int, dict[int, float]]:
    """Learn gains with all weights frozen: first of all heads, then of the ``keep`` that moved most.

    Each of the two times the learning rate falls to nothing.

    Args:
        net: the model, its LoRA merged.
        batches: rows between two steps of the optimiser.
        keep: heads that may have a gain.
        rate: learning rate at the beginning.
        epochs: how often the batches are gone through, each of the two times.

    Returns:
        Gains by layer and head, without those that came to about 1.

    Raises:
        TrainingError: nothing to learn from, or a loss that is no number.
    """
    import torch

    if not batches:
        raise TrainingError("head gates: no scene to learn from")
    with _Gates(net) as gates:
        gates.fit(batches, torch.ones_like(gates.gains), rate, epochs)
        moved = (gates.gains.detach() - 1).abs()
        strongest = moved.flatten().topk(min(keep, moved.numel())).indices
        chosen = torch.zeros_like(moved).flatten()
        chosen[strongest] = 1
        chosen = chosen.view_as(moved)
        gates.reset(chosen)
        gates.fit(batches, chosen, rate, epochs)
        found: dict[int, dict[int, float]] = {}
        for layer, head in chosen.nonzero().tolist():
            gain = round(float(gates.gains[layer, head].detach()), 3)
            if abs(gain - 1) >= _NOTABLE:
                found.setdefault(layer, {})[head] = gain
        return found


@contextlib.contextmanager
def gated(net: Net, gains: Gains) -> Iterator[None]:
    """The model with these gains, while this is entered."""
    import torch

    with _Gates(net) as gates, torch.no_grad():
        for layer, row in gains.items():
            for head, gain in row.items():
                gates.gains[layer, head] = gain
        yield


class _Gates:
    """Gains (float32 [layers, heads]) on the inputs of a model's attention output projections."""

    def __init__(self, net: Net) -> None:
        import torch

        self.net = net
        config = net.model.config
        self.heads = int(config.num_attention_heads)
        self.gains = torch.nn.Parameter(torch.ones(int(config.num_hidden_layers), self.heads, device=net.device))
        self._hooks: list[Any] = []

    def __enter__(self) -> _Gates:
        for name, module in self.net.model.named_modules():
            found = re.search(r"\.layers\.(\d+)\.self_attn\.o_proj$", name)
            if found:
                self._hooks.append(module.register_forward_pre_hook(self._hook(int(found[1]))))
        if len(self._hooks) != len(self.gains):
            self.__exit__()
            raise TrainingError(
                f"head gates: this model has {len(self._hooks)} known attention outputs in {len(self.gains)} layers"
            )
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _hook(self, layer: int) -> Any:
        def multiply(_module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            whole = inputs[0]
            apart = whole.view(*whole.shape[:-1], self.heads, -1) * self.gains[layer].to(whole.dtype)[:, None]
            return (apart.view_as(whole), *inputs[1:])

        return multiply

    def reset(self, chosen: torch.Tensor) -> None:
        """Gains of 1 for all heads that weren't chosen."""
        self.gains.data = self.gains.data * chosen + (1 - chosen)

    def fit(self, batches: Sequence[Sequence[Row]], chosen: torch.Tensor, rate: float, epochs: int) -> None:
        """Learn the gains of the chosen heads (1 in ``chosen``, [layers, heads])."""
        import torch

        optimizer = torch.optim.Adam([self.gains], lr=rate)
        for turn in range(epochs):
            for number, rows in enumerate(batches):
                done = (turn + number / len(batches)) / epochs
                for group in optimizer.param_groups:
                    group["lr"] = rate * (1 - done)
                whole = float(sum(row.weights.sum() for row in rows)) or 1.0
                optimizer.zero_grad(set_to_none=True)
                for row in rows:
                    weights = torch.from_numpy(row.weights).to(self.net.device)
                    loss = (self.net.losses(row) * weights).sum() / whole
                    if not math.isfinite(float(loss.detach())):
                        names = ", ".join(example.name for example in row.examples)
                        raise TrainingError(f"head gates: the loss is {float(loss.detach())} at {names}")
                    loss.backward()
                if self.gains.grad is not None:
                    self.gains.grad *= chosen
                optimizer.step()
                with torch.no_grad():
                    self.gains.clamp_(_LEAST, _MOST)


def put_gates(text: str, gates: Mapping[str, Gains], where: str = "field_architecture.yaml") -> str:
    """A field architecture's text with these head gates for its channels; comments and all else stay as they are.

    Raises:
        TrainingError: a channel's zone isn't written in the way that this can change.
    """
    lines = text.split("\n")
    for channel, gains in gates.items():
        head = re.compile(rf"    {re.escape(channel)}:\s*(#.*)?")
        start = next((i for i, line in enumerate(lines) if head.fullmatch(line)), None)
        if start is None:
            raise TrainingError(f"{where}: field.zones.{channel}: has no line of its own; write its head_gates by hand")
        end = start + 1
        while end < len(lines) and (lines[end].startswith("      ") or not lines[end].strip()):
            end += 1
        zone = [line for line in lines[start:end] if not re.match(r"      head_gates:", line)]
        if gains:
            at = next((i for i, line in enumerate(zone) if line.startswith("      kind:")), 0) + 1
            rows = ", ".join(
                f"{layer}: {{{', '.join(f'{head}: {gain:g}' for head, gain in sorted(row.items()))}}}"
                for layer, row in sorted(gains.items())
            )
            zone.insert(at, f"      head_gates: {{{rows}}}")
        lines[start:end] = zone
    changed = "\n".join(lines)
    try:
        parse_field(changed, where)
    except SchemaError as error:
        raise TrainingError(f"{where}: head gates can't be put there: {error}") from error
    return changed
