"""docs/stdio_client.mjs, as a reader of the documentation would run it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .client import ROOT, SECONDS

CLIENT = ROOT / "docs" / "stdio_client.mjs"


def _version(node: str) -> int:
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    return int(re.match(r"v(\d+)", done.stdout)[1])  # type: ignore[index]


@pytest.mark.needs_model
def test_the_client_in_javascript(tmp_path: Path, shared_cache: Path):
    (tmp_path / "cache").symlink_to(shared_cache, target_is_directory=True)
    node = shutil.which("node")
    if node is None or _version(node) < 18:
        pytest.skip("node 18 or newer is not installed")
    done = subprocess.run(
        [node, str(CLIENT), sys.executable, "-m", "ltm_edge", "stdio", "--", "Мой сад умирает — 🌱?"],
        capture_output=True,
        timeout=SECONDS,
        cwd=ROOT,
        env=os.environ | {"LTM_EDGE_HOME": str(tmp_path)},
    )
    lines = done.stdout.decode("utf-8").splitlines()
    assert done.returncode == 0, done.stderr.decode()
    assert lines[0].startswith("s1: ") and lines[1] == "scene:" and lines[2] == "  actors:"
    assert re.fullmatch(r"[0-9] scenes in memory fit", lines[-2])
    assert lines[-1] == "1600 InputError"


def test_it_is_of_about_forty_lines_and_the_documentation_names_every_method_and_code():
    from ltm_edge.schemas.stdio import METHODS
    from ltm_edge.server.codes import CODES

    code = [line for line in CLIENT.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 45
    text = (ROOT / "docs" / "stdio.md").read_text(encoding="utf-8")
    for name in METHODS:
        assert f"`{name}`" in text or f"`.{name.removeprefix('memory.')}`" in text, name
    for name, number in CODES.items():
        assert f"`{name}`" in text and re.search(rf"(?<!\d){number}(?!\d)", text), name
