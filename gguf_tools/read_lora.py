"""Reading a LoRA of any kind, told by the file's first bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf_tools.errors import Unreadable
from gguf_tools.lora import Lora
from gguf_tools.lora_gguf import read_gguf_lora
from gguf_tools.lora_peft import read_peft
from gguf_tools.records import GgufInfo

__all__ = ["is_gguf", "read_lora"]


def read_lora(path: Path, base: GgufInfo, settings: Mapping[str, Any] | None = None) -> Lora:
    """The LoRA in a GGUF file, a safetensors file or a PEFT folder.

    Args:
        path: the file or folder.
        base: the base model's header.
        settings: PEFT's settings by name, where no `adapter_config.json` and no metadata has them.

    Raises:
        GgufError: it can't be read or merged; the class tells why.
    """
    return read_gguf_lora(path, base) if is_gguf(path) else read_peft(path, base, settings=settings)


def is_gguf(path: Path) -> bool:
    """Whether a file starts like a GGUF file.

    Raises:
        Unreadable: the system refuses to read it.
    """
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError as error:
        raise Unreadable(path, f"can't be read: {error.strerror or error}") from error
