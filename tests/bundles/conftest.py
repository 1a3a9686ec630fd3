"""What the tests of bundles share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_tools.bundle_converter import BundleConverter, Options

TOKENS = [int(token) for token in np.random.default_rng(1).integers(4, 96, 24)]

Convert = Callable[..., BundleConverter]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Converts a folder; returns the converter, whose `target` is the file."""

    def run(folder: Path, base: Path, name: str = "out.gguf", **options: Any) -> BundleConverter:
        converter = BundleConverter(folder, base, tmp_path / name, Options(**options))
        converter.run()
        return converter

    return run
