"""Pack app.py, ltm-edge, llama.cpp and a bundle into a folder that runs where there is no Python.

Usage: python examples/frozen/build.py BUNDLE.gguf OUT      (needs: pip install pyinstaller)
Run it in an environment that holds ltm-edge and nothing heavy: what can be imported may be packed. For other machines
than this one let it hold the llama-cpp-python of `make wheelhouse`: one that pip compiles is for this CPU. Then the
program is started with an empty path, and its size, its start and its answer are printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What ltm-edge loads by name, and what stands beside its modules.
COLLECT = (
    "--collect-submodules=ltm_edge",
    "--collect-submodules=gguf_tools",
    "--collect-data=ltm_edge",
    "--collect-data=py3langid",
    "--hidden-import=ltm_edge._core",
    "--hidden-import=llama_cpp",
    "--collect-binaries=llama_cpp",
    "--copy-metadata=ltm-edge",
)
# Only for training, drawing and other programs' formats; ltm-edge does without.
LEAVE_OUT = (
    "accelerate",
    "faiss",
    "hf_xet",
    "huggingface_hub",
    "llama_cpp.server",
    "peft",
    "pytest",
    "safetensors",
    "tkinter",
    "torch",
    "transformers",
)


def build(bundle: Path, out: Path) -> Path:
    """Pack it; the program's path."""
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--onedir", "--name=ltm-app", "--log-level=WARN"]
    command += [*COLLECT, *(f"--exclude-module={name}" for name in LEAVE_OUT)]
    command += [f"--distpath={out}", f"--workpath={out / 'work'}", f"--specpath={out / 'work'}", str(HERE / "app.py")]
    out.mkdir(parents=True, exist_ok=True)
    # Not where sources lie: what is installed is to be packed, not what stands in the folder.
    subprocess.run(command, check=True, cwd=out)
    folder = out / "ltm-app"
    inside = folder / "_internal"
    shutil.copy2(bundle, inside / "bundle.gguf")
    sidecar = bundle.with_suffix(".ltm")
    if sidecar.is_dir():
        shutil.copytree(sidecar, inside / "bundle.ltm", dirs_exist_ok=True)
    shutil.rmtree(out / "work")
    return folder / ("ltm-app.exe" if os.name == "nt" else "ltm-app")


def main() -> None:
    """Pack, start, print."""
    bundle, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    program = build(bundle, out)
    size = sum(path.stat().st_size for path in program.parent.rglob("*") if path.is_file() and not path.is_symlink())
    sys.stdout.write(f"{program.parent}: {size / 1e6:.0f} MB, {bundle.stat().st_size / 1e6:.0f} of them the bundle\n")
    empty = {"PATH": "", "LTM_EDGE_HOME": str(out / "home")}
    env = empty | ({"SYSTEMROOT": os.environ["SYSTEMROOT"]} if os.name == "nt" else {})
    start = time.perf_counter()
    done = subprocess.run([str(program), "My garden keeps dying."], capture_output=True, text=True, env=env, cwd=out)
    sys.stdout.write(f"{done.stderr}answered after {time.perf_counter() - start:.2f} s:\n{done.stdout}")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
