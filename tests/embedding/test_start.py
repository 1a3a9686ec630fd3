"""How large it is and how quickly it starts. Times are the processor's, and a slow one gets more."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
from pathlib import Path

import pytest

from ltm_edge.native import core
from tests.timing import ROOT, cpu_seconds, slowness

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="reads the processor time of children")


def test_the_import_takes_60_ms():
    """Compared with a Python that imports nothing."""
    assert cpu_seconds("-c", "import ltm_edge") - cpu_seconds("-c", "pass") <= 0.06 * slowness()


def test_the_import_loads_nothing_heavy():
    code = "import sys, ltm_edge; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"numpy", "pydantic", "yaml", "click", "llama_cpp", "asyncio", "jinja2", "torch", "socket"}


@pytest.mark.needs_model
def test_a_chat_is_at_its_prompt_in_1500_ms(demo_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path))
    # The input ends at once: what is left is the way to the prompt, and back.
    assert cpu_seconds("-m", "ltm_edge", "chat", str(demo_path), "--threads", "1") <= 1.5 * slowness()


def test_what_is_installed_is_at_most_5_mb():
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    files = [
        path
        for folder in ("ltm_edge", "gguf_tools")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(suffixes)
    ]
    files.append(Path(core().__file__ or ""))
    assert sum(path.stat().st_size for path in files) <= 5_000_000
