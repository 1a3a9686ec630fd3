from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ltm_edge.cli import main as main_module
from ltm_edge.cli import options
from ltm_edge.cli.main import cli

from .fakes import FakeBundle

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder of the user's."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LTM_EDGE_HOME", str(folder))
    return folder


@pytest.fixture
def bundle(home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBundle:
    """A bundle without a model, which the commands open."""
    fake = FakeBundle()

    def open_bundle(path: str | None, model: options.ModelOptions) -> Any:
        fake.opened_with = (path, model)
        return fake

    monkeypatch.setattr(options, "open_bundle", open_bundle)
    return fake


@pytest.fixture(autouse=True)
def _no_debug() -> Iterator[None]:
    yield
    main_module._state["debug"] = False


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Run the command line in this process."""

    def run(*args: str, input: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, list(args), input=input)

    return run


@pytest.fixture
def command(home: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run the command line over the fake bundle in a process of its own; bytes in, bytes out."""

    def run(*args: str, input: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, str(ROOT / "tests" / "cli" / "fake_main.py"), *args],
            input=input,
            capture_output=True,
            env=os.environ | env,
        )

    return run
