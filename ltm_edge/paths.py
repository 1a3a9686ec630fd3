"""Where ltm-edge keeps what belongs to its user."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ltm_edge.errors import InputError

__all__ = ["cache_dir", "data_dir", "memory_folder"]


def data_dir() -> Path:
    """The user's data folder (sessions, memory, input history); it may not exist yet.

    ``LTM_EDGE_HOME`` overrides the platform's usual place.
    """
    home = os.environ.get("LTM_EDGE_HOME")
    if home:
        return Path(home).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("ltm-edge", appauthor=False))


def cache_dir() -> Path:
    """The user's folder for what can be computed again; it may not exist yet."""
    if os.environ.get("LTM_EDGE_HOME"):
        return data_dir() / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir("ltm-edge", appauthor=False))


def memory_folder(name: str = "default") -> Path:
    """The folder of a memory in the user's data folder; it may not exist yet.

    Raises:
        InputError: the name could leave the folder of memories.
    """
    if not re.fullmatch(r"[^\W_][\w.-]{0,63}", name) or name.endswith(".") or ".." in name:
        raise InputError(
            f"memory name {name!r}: use 1 to 64 letters, digits or . _ -, starting with a letter or a digit"
        )
    return data_dir() / "memory" / name
