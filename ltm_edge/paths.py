"""Where ltm-edge keeps what belongs to its user."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_dir", "data_dir"]


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
