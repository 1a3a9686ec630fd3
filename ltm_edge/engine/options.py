"""EngineOptions: how a model is loaded and where it runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ltm_edge.errors import InputError

__all__ = ["DEFAULT_CTX", "KV_TYPES", "EngineOptions", "bounded_threads", "default_threads"]

DEFAULT_CTX = 4096
"""Tokens of context when none are asked for; capped by what the model was trained on."""

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}


def default_threads() -> int:
    """Cores this process may use, hardware threads of one core counted once; at least 1.

    llama.cpp is bound by memory bandwidth and vector units, which hardware threads share, so more threads than cores
    slow it down.
    """
    try:
        smt = Path("/sys/devices/system/cpu/smt/active").read_text(encoding="ascii").strip() == "1"
    except OSError:
        smt = False
    return max(1, _usable() // 2 if smt else _usable())


def bounded_threads(wanted: int | None) -> int:
    """As many threads as are wanted, no more than the processors this process may use; one per core if None.

    llama.cpp's threads wait for each other by spinning: one more than can run at a time makes every step as slow as
    the scheduler's turns, a hundred more make it stand still.
    """
    return default_threads() if wanted is None else min(wanted, _usable())


def _usable() -> int:
    """Processors that this process may use, hardware threads counted each."""
    try:
        return max(1, len(os.sched_getaffinity(0)))  # type: ignore[attr-defined,unused-ignore]
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is loaded and where it runs.

    Attributes:
        gpu_layers: ``auto`` (what fits), ``all``, or a number of layers.
        device: name of one device to offload to, as ``ltm-edge doctor`` lists them; None: all of them.
        threads: CPU threads, never more than processors; None: one per core.
        ctx: context in tokens; None: 4096, or less where the model was trained on less.
        flash_attn: ``auto``, ``on`` or ``off``.
        kv_type: type of the KV cache, one of :data:`KV_TYPES`.
    """

    gpu_layers: int | str = "auto"
    device: str | None = None
    threads: int | None = None
    ctx: int | None = None
    flash_attn: str = "auto"
    kv_type: str = "f16"

    def __post_init__(self) -> None:
        layers = self.gpu_layers
        if isinstance(layers, str) and layers.isdecimal():
            object.__setattr__(self, "gpu_layers", int(layers))
        elif not (layers in ("auto", "all") if isinstance(layers, str) else isinstance(layers, int) and layers >= 0):
            raise InputError(f"gpu_layers: expected auto, all or a number of layers, found {_shown(layers)}")
        if self.threads is not None and not (isinstance(self.threads, int) and 1 <= self.threads <= 1024):
            raise InputError(f"threads: expected 1 to 1024, found {_shown(self.threads)}")
        if self.ctx is not None and not (isinstance(self.ctx, int) and 128 <= self.ctx <= 1 << 24):
            raise InputError(f"ctx: expected 128 to {1 << 24} tokens, found {_shown(self.ctx)}")
        if not isinstance(self.flash_attn, str) or self.flash_attn not in _FLASH_ATTN:
            raise InputError(f"flash_attn: expected auto, on or off, found {_shown(self.flash_attn)}")
        if not isinstance(self.kv_type, str) or self.kv_type not in KV_TYPES:
            raise InputError(f"kv_type: expected one of {', '.join(KV_TYPES)}, found {_shown(self.kv_type)}")

    @property
    def flash_attn_code(self) -> int:
        """llama.cpp's number for :attr:`flash_attn`."""
        return _FLASH_ATTN[self.flash_attn]


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"
