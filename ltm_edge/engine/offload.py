"""Deciding what runs on a GPU. llama.cpp's own fitting is not part of its library's interface, so it is done here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ltm_edge.errors import InputError

__all__ = ["DeviceInfo", "ModelFacts", "OffloadPlan", "plan_offload"]

_MIB = 1 << 20
_RESERVE_SHARE = 0.08  # of a device's free memory: other programs, fragmentation
_RESERVE_MIN = 256 * _MIB
_BYTES_PER_KV = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 1.0625, "q5_1": 0.75, "q5_0": 0.6875, "q4_1": 0.625}


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A compute device: its name, its kind (``cpu``, ``gpu``, ``igpu``, ``accel``) and its memory in bytes."""

    name: str
    description: str
    type: str
    memory_free: int
    memory_total: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What an offload plan needs to know of a model.

    Attributes:
        weights: size of all tensors in bytes.
        layers: number of blocks; the output layer comes on top.
        embedding: width of the residual stream.
        kv_width: keys and values that one token stores in one layer, in numbers (not bytes).
        vocabulary: number of tokens.
    """

    weights: int
    layers: int
    embedding: int
    kv_width: int
    vocabulary: int

    def kv_bytes(self, n_ctx: int, kv_type: str) -> int:
        """Bytes of the keys and values of ``n_ctx`` tokens, where every layer keeps those of all of them."""
        return int(self.layers * self.kv_width * n_ctx * _BYTES_PER_KV.get(kv_type, 0.5625))


@dataclass(frozen=True, slots=True)
class OffloadPlan:
    """What runs where.

    Attributes:
        layers: layers to offload, the output layer counted (0: CPU only).
        devices: names of the devices to use; empty: none, or llama.cpp's choice.
        line: one line for the user that says what runs where.
        notice: something the user asked for and does not get, or None.
    """

    layers: int
    devices: tuple[str, ...]
    line: str
    notice: str | None = None


def plan_offload(
    request: int | str,
    device: str | None,
    devices: Sequence[DeviceInfo],
    facts: ModelFacts,
    *,
    n_ctx: int,
    kv_type: str = "f16",
) -> OffloadPlan:
    """Decide how many layers go to which devices.

    ``auto`` offloads as many layers as fit into the devices' free memory beside the KV cache of those layers, the
    compute buffers and a reserve. Raises InputError if ``device`` names no device.
    """
    gpus = [d for d in devices if d.type in ("gpu", "igpu")]
    if device is not None:
        chosen = [d for d in devices if d.name.lower() == device.lower()]
        if not chosen:
            known = ", ".join(d.name for d in devices) or "none"
            raise InputError(f"device: no {device!r} here; available: {known}")
        gpus = [d for d in chosen if d.type != "cpu"]
        if not gpus:
            return OffloadPlan(0, (), "runs on the CPU")
    elif any(d.type == "gpu" for d in gpus):
        gpus = [d for d in gpus if d.type == "gpu"]  # a shared-memory GPU beside a real one only slows it down
    if request == 0:
        return OffloadPlan(0, (), "runs on the CPU")
    if not gpus:
        notice = None
        if request != "auto":
            notice = (
                f"{request} layers were asked for on a GPU, but this llama.cpp was built for the CPU only or sees no "
                'GPU; for NVIDIA: CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir '
                "llama-cpp-python==0.3.36"
            )
        return OffloadPlan(0, (), "runs on the CPU", notice)

    total = facts.layers + 1
    if request == "all":
        layers = total
    elif request == "auto":
        layers = _fitting_layers(gpus, facts, n_ctx, kv_type)
    else:
        layers = min(int(request), total)
    names = tuple(d.name for d in gpus)
    where = " + ".join(f"{d.name} ({d.description})" for d in gpus)
    if layers == 0:
        free = sum(d.memory_free for d in gpus) // _MIB
        return OffloadPlan(0, (), "runs on the CPU", f"no layer fits into the {free} MiB free on {where}")
    line = f"{'all' if layers == total else layers} of {total} layers on {where}"
    if layers < total:
        line += ", the rest on the CPU"
    return OffloadPlan(layers, names, line)


def _fitting_layers(gpus: Sequence[DeviceInfo], facts: ModelFacts, n_ctx: int, kv_type: str) -> int:
    """Largest number of layers (the output layer last) whose weights and KV fit."""
    kv_per_layer = facts.kv_bytes(n_ctx, kv_type) / max(facts.layers, 1)
    # The output matrix is about vocabulary x embedding of the weights; the rest is spread evenly over the blocks.
    parameters_out = facts.vocabulary * facts.embedding
    per_layer = facts.weights / (facts.layers + 1)
    output = min(max(parameters_out * 1.0, per_layer), facts.weights / 2)
    block = (facts.weights - output) / max(facts.layers, 1) + kv_per_layer
    # Compute buffers of one 512-token batch: the logits' and a few activations' worth, in float32.
    compute = 512 * 4 * (facts.vocabulary + 8 * facts.embedding)
    room = sum(d.memory_free - max(_RESERVE_MIN, int(d.memory_free * _RESERVE_SHARE)) - compute for d in gpus)
    if room <= 0:
        return 0
    blocks = min(facts.layers, int(room // block))
    return facts.layers + 1 if blocks == facts.layers and room - blocks * block >= output else blocks
