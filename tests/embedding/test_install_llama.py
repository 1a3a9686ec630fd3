"""tools/install_llama.py: what it runs, and how it reads doctor's report."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from ltm_edge.cli.doctor_checks import check_native
from ltm_edge.native import LLAMA_CPP_PYTHON
from tools import install_llama

ROOT = Path(__file__).parents[2]
PINNED = f"llama-cpp-python=={LLAMA_CPP_PYTHON}"


def test_a_build_takes_no_cached_wheel_and_leaves_other_packages_alone():
    command, env = install_llama.plan("cuda", None)
    assert env == {"CMAKE_ARGS": "-DGGML_CUDA=on"} and command[-1] == PINNED
    assert {"--no-cache-dir", "--no-binary", "--no-deps", "--force-reinstall"} <= set(command)
    command, env = install_llama.plan("cuda", "https://wheels.example/cu124")
    assert (
        not env and "--only-binary" in command and "https://wheels.example/cu124" in command and command[-1] == PINNED
    )


@pytest.mark.parametrize("backend", ["cuda", "vulkan", "metal", "cpu"])
def test_the_command_line_says_what_it_would_run(backend: str):
    line = [sys.executable, str(ROOT / "tools" / "install_llama.py"), backend, "--dry-run"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f'CMAKE_ARGS="{install_llama.FLAGS[backend]}" ') and PINNED in done.stdout


def device(name: str, kind: str) -> dict[str, object]:
    return {"name": name, "description": "x", "type": kind, "memory_free": 1, "memory_total": 2}


@pytest.mark.parametrize(
    ("backend", "found", "said"),
    [
        ("cuda", {"gpu_offload": True, "devices": [device("CUDA0", "gpu"), device("CPU", "cpu")]}, ""),
        ("vulkan", {"gpu_offload": True, "devices": [device("Vulkan0", "igpu"), device("CPU", "cpu")]}, ""),
        ("metal", {"gpu_offload": True, "devices": [device("MTL0", "gpu"), device("CPU", "cpu")]}, ""),
        ("cpu", {"gpu_offload": False, "devices": [device("CPU", "cpu")]}, ""),
        ("cuda", {"gpu_offload": False, "devices": [device("CPU", "cpu")]}, "no cuda device"),
        ("cuda", {"gpu_offload": True, "devices": [device("CPU", "cpu")]}, "no cuda device"),
        ("cuda", {"gpu_offload": True, "devices": [device("Vulkan0", "gpu")]}, "no cuda device"),
        ("cuda", {"error": "it doesn't load"}, "it doesn't load"),
    ],
)
def test_doctor_s_report_is_the_verdict(backend: str, found: dict[str, object], said: str):
    checks = check_native(found)
    report = json.loads(json.dumps({"checks": [asdict(check) for check in checks]}))
    verdict = install_llama.verdict(backend, report)
    assert said in verdict and bool(said) == bool(verdict)
    if not said and backend != "cpu":
        (gpu,) = (check for check in checks if check.name == "GPU")
        assert gpu.status == "ok" and "models go to" in gpu.value
