"""Install the llama-cpp-python that uses this machine's GPU, below an installed ltm-edge, and ask whether it worked.

Usage: python tools/install_llama.py cuda|vulkan|metal|cpu [--index URL] [--dry-run]
Run it with the Python of the environment that holds ltm-edge. Without --index llama.cpp is compiled here, which needs a
C++ compiler and the tools that are named if they are missing; else a wheel of that release is taken from there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLAGS = {"cuda": "-DGGML_CUDA=on", "vulkan": "-DGGML_VULKAN=on", "metal": "-DGGML_METAL=on", "cpu": "-DGGML_NATIVE=on"}
TOOLS = {
    "cuda": (("nvcc", "the CUDA toolkit"),),
    "vulkan": (("glslc", "the Vulkan SDK (on Debian: libvulkan-dev and glslc)"),),
    "metal": (("xcrun", "Xcode's command line tools"),),
    "cpu": (),
}
# How llama.cpp calls the devices of a back end.
DEVICES = {"cuda": "CUDA", "vulkan": "Vulkan", "metal": "MTL|Metal"}


def pinned() -> str:
    """The requirement that pyproject.toml pins."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'"(llama-cpp-python==[0-9.]+)"', text)[1]  # type: ignore[index]


def plan(backend: str, index: str | None) -> tuple[list[str], dict[str, str]]:
    """The command that installs it, and what the environment gets for it."""
    command = [sys.executable, "-m", "pip", "install", "--force-reinstall", "--no-deps", "--no-cache-dir"]
    if index is not None:
        return [*command, "--only-binary", "llama-cpp-python", "--extra-index-url", index, pinned()], {}
    return [*command, "--no-binary", "llama-cpp-python", pinned()], {"CMAKE_ARGS": FLAGS[backend]}


def missing(backend: str) -> list[str]:
    """What a build needs and isn't there."""
    return [f"{program} ({what})" for program, what in TOOLS[backend] if shutil.which(program) is None]


def verdict(backend: str, report: object) -> str:
    """What doctor's report (JSON) says against it; nothing where it worked."""
    checks = report.get("checks", []) if isinstance(report, dict) else []
    problems = [f"{check['name']}: {check['value']}" for check in checks if check["status"] == "problem"]
    if problems:
        return "; ".join(problems)
    if backend == "cpu":
        return ""
    devices = [check["name"] for check in checks if check["group"] == "devices"]
    if not any(re.match(DEVICES[backend], name) for name in devices):
        return f"llama.cpp sees no {backend} device, only {', '.join(devices) or 'none'}: is its driver installed?"
    return ""


def main() -> int:
    """Install and check; 0 where it worked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", choices=list(FLAGS))
    parser.add_argument("--index", help="index with wheels for this back end")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be run")
    options = parser.parse_args()
    command, env = plan(options.backend, options.index)
    sys.stdout.write(" ".join([*(f'{key}="{value}"' for key, value in env.items()), *command]) + "\n")
    if options.dry_run:
        return 0
    lacking = [] if options.index else missing(options.backend)
    if lacking:
        sys.stderr.write(f"error: not found: {', '.join(lacking)}; install it, or name an index of wheels\n")
        return 1
    subprocess.run(command, check=True, env=os.environ | env)
    done = subprocess.run([sys.executable, "-m", "ltm_edge", "doctor", "--json"], capture_output=True, text=True)
    try:
        said = verdict(options.backend, json.loads(done.stdout))
    except ValueError:
        said = done.stderr.strip() or "doctor said nothing"
    sys.stdout.write("it works\n" if not said else "")
    sys.stderr.write(f"error: {said}\n" if said else "")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
