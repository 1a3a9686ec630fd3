"""Checkpoints of a training run and the adapter that comes of it; what was written before survives any crash."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltm_edge.errors import TrainingError
from ltm_edge.files import replacing, write_atomic

if TYPE_CHECKING:
    import torch

__all__ = ["ADAPTER", "CHECKPOINT", "Checkpoint", "load_adapter", "load_checkpoint", "save_adapter", "save_checkpoint"]

ADAPTER = "model_lora.safetensors"
CHECKPOINT = "checkpoint.pt"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run stands after a step.

    Attributes:
        step: steps that are done.
        plan: identifies curriculum, data and base; a run goes on only with the same.
        lora: tensors by name.
        optimizer: its state.
        best: lowest validation loss so far.
        log: what was noted step by step.
    """

    step: int
    plan: str
    lora: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, Any]
    best: float
    log: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint: temporary sibling, fsync, rename.

    Raises:
        TrainingError: it can't be written; the one before is untouched.
    """
    import torch

    content = {
        "version": _VERSION,
        "step": checkpoint.step,
        "plan": checkpoint.plan,
        "lora": dict(checkpoint.lora),
        "optimizer": checkpoint.optimizer,
        "best": checkpoint.best,
        "log": json.dumps(checkpoint.log),
    }
    path = folder / CHECKPOINT
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        with replacing(path) as stream:
            stream.write(buffer.getbuffer())
    except OSError as error:
        raise _unwritten(path, len(buffer.getbuffer()), error) from error


def load_checkpoint(folder: Path, plan: str) -> Checkpoint | None:
    """The folder's checkpoint; None where there is none.

    Raises:
        TrainingError: it can't be read, or belongs to another run.
    """
    import pickle

    import torch

    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint = Checkpoint(
            int(found["step"]),
            str(found["plan"]),
            found["lora"],
            found["optimizer"],
            float(found["best"]),
            json.loads(found["log"]),
        )
        version = found["version"]
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise TrainingError(f"{path}: can't be read ({reason}); remove it to begin anew") from error
    if version != _VERSION:
        raise TrainingError(f"{path}: of version {version}, this is {_VERSION}; remove it to begin anew")
    if checkpoint.plan != plan:
        raise TrainingError(
            f"{path}: of a run with another curriculum, other data or another base; give another --out, "
            "or remove it to begin anew"
        )
    return checkpoint


def save_adapter(path: Path, lora: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> None:
    """Write the LoRA as PEFT names it, in half precision, as one safetensors file.

    The settings (r, lora_alpha, base_sha256) stand in its metadata, so that the file says alone what it is; as one
    entry, since the order of several is left to chance.

    Raises:
        TrainingError: it can't be written; a file that was there is untouched.
    """
    import torch
    from safetensors.torch import save

    halves = {name: value.to(torch.float16).contiguous() for name, value in sorted(lora.items())}
    raw = save(halves, {"adapter_config": json.dumps(dict(settings), sort_keys=True)})
    try:
        write_atomic(path, raw)
    except OSError as error:
        raise _unwritten(path, len(raw), error) from error


def load_adapter(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter as :func:`save_adapter` writes it, float32.

    Raises:
        TrainingError: it can't be read.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: value.to(torch.float32) for name, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: isn't an adapter that can be read: {error}") from error


def _unwritten(path: Path, size: int, error: OSError) -> TrainingError:
    return TrainingError(
        f"{path}: {size >> 20} MB can't be written: {error.strerror or error}; the last one is untouched, "
        "make room and go on with --resume"
    )
