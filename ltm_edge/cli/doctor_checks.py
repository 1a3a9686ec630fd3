"""The checks of `ltm-edge doctor`. Each looks at one thing and says what to do if it isn't as it should be."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gguf_tools.printable import byte_count, printable, printable_path
from ltm_edge import __version__, machine
from ltm_edge.errors import ModelError
from ltm_edge.models import DEMO_EMBEDDER, DEMO_MODEL, PackagedFile, find_packaged
from ltm_edge.native import LLAMA_CPP_PYTHON
from ltm_edge.paths import cache_dir, data_dir

__all__ = ["Check", "all_checks"]

Status = Literal["ok", "note", "problem"]

_MIB = 1 << 20
# The demo model with its default context takes about this much; a session's files need far less.
_MEMORY_NEEDED = 400 * _MIB
_DISK_NEEDED = 200 * _MIB
_PROBE_SECONDS = 120
_REINSTALL_LLAMA = f"pip install --force-reinstall --no-cache-dir llama-cpp-python=={LLAMA_CPP_PYTHON}"


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Attributes:
        group: the section it is shown in.
        name: what was looked at.
        status: "ok"; "note" for something worth knowing; "problem" for what keeps ltm-edge from working.
        value: what was found, in one line.
        remedy: what to do; empty where nothing is to be done.
    """

    group: str
    name: str
    status: Status
    value: str
    remedy: str = ""


def all_checks() -> list[Check]:
    """Every check, in the order in which they are shown."""
    return [
        *check_versions(),
        *check_packages(),
        *check_native(run_probe()),
        check_memory(machine.memory()),
        check_model(DEMO_MODEL, missing="problem"),
        check_model(DEMO_EMBEDDER, missing="note"),
        *check_folder("data", data_dir()),
        *check_folder("cache", cache_dir()),
        *check_scene_memories(data_dir() / "memory"),
        check_encoding(sys.stdout.encoding or "", sys.stdout.isatty()),
    ]


def check_versions() -> list[Check]:
    """Python and ltm-edge themselves."""
    bits = 64 if sys.maxsize > 1 << 32 else 32
    value = f"{platform.python_version()}, {bits} bit, {platform.system()} {platform.machine()}"
    python = Check("versions", "Python", "ok", value)
    if bits == 32:
        python = Check("versions", "Python", "problem", value, "install a 64-bit Python: models need the address space")
    return [python, Check("versions", "ltm-edge", "ok", __version__)]


def check_packages() -> list[Check]:
    """The packages that ltm-edge needs: whether they are there, and llama-cpp-python in the right release."""
    try:
        wanted = importlib.metadata.requires("ltm-edge") or []
    except importlib.metadata.PackageNotFoundError:
        wanted = []
    names = [m[0] for text in wanted if "extra ==" not in text and (m := re.match(r"[A-Za-z0-9._-]+", text))]
    missing = [name for name in names if _installed(name) is None and name != "llama-cpp-python"]
    checks = []
    found = _installed("llama-cpp-python")
    if found == LLAMA_CPP_PYTHON:
        checks.append(Check("versions", "llama-cpp-python", "ok", found))
    else:
        value = f"{found}, {LLAMA_CPP_PYTHON} is needed" if found else "not installed"
        remedy = f"pip install llama-cpp-python=={LLAMA_CPP_PYTHON}"
        checks.append(Check("versions", "llama-cpp-python", "problem", value, remedy))
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        checks.append(Check("versions", "packages", "problem", f"missing: {', '.join(missing)}", remedy))
    elif names:
        checks.append(Check("versions", "packages", "ok", f"all {len(names)} needed ones are installed"))
    return checks


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def run_probe(command: Sequence[str] = (sys.executable, "-m", "ltm_edge.cli.native_probe")) -> Mapping[str, object]:
    """What the extension says, asked in a process of its own: it may die of a llama.cpp built for another CPU."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"loading it took longer than {_PROBE_SECONDS} s"}
    except OSError as error:
        return {"error": f"it can't be tried: {error.strerror or error}"}
    if done.returncode < 0:
        return {"error": _signal_name(-done.returncode), "crashed": True}
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return {"error": f"exit code {done.returncode}: {' '.join(last)}", "crashed": done.returncode > 1}
    return found if isinstance(found, dict) else {"error": "it said nothing"}


def _signal_name(number: int) -> str:
    try:
        return f"loading it ended the process ({signal.Signals(number).name})"
    except ValueError:
        return f"loading it ended the process (signal {number})"


def check_native(found: Mapping[str, object]) -> list[Check]:
    """The extension, llama.cpp as it was built, and the devices it sees."""
    if "error" in found:
        value = printable(str(found["error"]), 400)
        if found.get("crashed"):
            remedy = f"llama.cpp was probably built for another CPU; build it here: {_REINSTALL_LLAMA}"
        elif "not built" in value:
            remedy = "in the checkout: pip install .   (or: make build)"
        else:
            remedy = f"{_REINSTALL_LLAMA}, then install ltm-edge again"
        return [Check("llama.cpp", "extension", "problem", value, remedy)]
    info = " ".join(str(found.get("system_info", "")).split()).strip(" |")
    checks = [
        Check("llama.cpp", "extension", "ok", "loads"),
        Check("llama.cpp", "version", "ok", printable(str(found.get("llama_version") or "unknown"))),
        Check("llama.cpp", "built with", "ok", printable(info, 600)),
    ]
    devices = found.get("devices")
    listed = [d for d in devices if isinstance(d, dict)] if isinstance(devices, list) else []
    for device in listed:
        free, total = device.get("memory_free"), device.get("memory_total")
        value = printable(f"{device.get('description')} ({device.get('type')})")
        if isinstance(free, int) and isinstance(total, int) and total:
            value += f", {byte_count(free)} of {byte_count(total)} free"
        checks.append(Check("devices", printable(str(device.get("name"))), "ok", value))
    if not listed:
        checks.append(Check("devices", "none", "problem", "llama.cpp sees no device at all", _REINSTALL_LLAMA))
    if found.get("gpu_offload") and listed:
        checks.append(_gpu([str(d.get("name")) for d in listed if d.get("type") in ("gpu", "igpu")]))
    elif listed:
        checks.append(_cpu_only(shutil.which("nvidia-smi") is not None))
    return checks


def _gpu(names: Sequence[str]) -> Check:
    if names:
        return Check("devices", "GPU", "ok", f"models go to {', '.join(printable(name) for name in names)}")
    remedy = "install the GPU's driver, or a newer one; docs/gpu.md says more"
    return Check("devices", "GPU", "note", "this llama.cpp can use a GPU, and sees none", remedy)


def _cpu_only(nvidia: bool) -> Check:
    value = "this llama.cpp runs on the CPU only"
    if not nvidia:
        return Check("devices", "GPU", "ok", value)
    remedy = f'to use the NVIDIA GPU: CMAKE_ARGS="-DGGML_CUDA=on" {_REINSTALL_LLAMA}'
    return Check("devices", "GPU", "note", f"{value}, and there is an NVIDIA driver", remedy)


def check_memory(found: machine.Memory | None) -> Check:
    """Main memory."""
    if found is None:
        return Check("machine", "memory", "note", "the system doesn't say")
    value = f"{byte_count(found.total)}{' (limit of this container)' if found.limited else ''}"
    if found.available is not None:
        value += f", {byte_count(found.available)} available"
    if (found.total if found.available is None else found.available) < _MEMORY_NEEDED:
        remedy = f"close other programs: even the demo model needs about {byte_count(_MEMORY_NEEDED)}"
        return Check("machine", "memory", "problem", value, remedy)
    return Check("machine", "memory", "ok", value)


def check_model(wanted: PackagedFile, missing: Status) -> Check:
    """A packaged model and its hash."""
    try:
        found = find_packaged(wanted)
    except ModelError as error:
        text, _, remedy = str(error).rpartition("; ")
        return Check(
            "models", wanted.what, missing if _installed(wanted.distribution) is None else "problem", text, remedy
        )
    return Check("models", wanted.what, "ok", f"{printable_path(found.path)}, sha256 {found.sha256} ({found.source})")


def check_folder(name: str, path: Path) -> list[Check]:
    """One of the user's folders: whether it can be written, and the space where it is. Nothing is left behind."""
    shown = printable_path(path)
    existing = machine.nearest_existing(path)
    remedy = "make it writable, or name another folder in the environment variable LTM_EDGE_HOME"
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        return [Check("folders", name, "problem", f"{shown} can't be written: {reason}", remedy)]
    value = shown if path.exists() else f"{shown} (made when it is needed)"
    free = machine.free_disk(path)
    if free is None:
        return [Check("folders", name, "ok", value)]
    value += f", {byte_count(free)} free"
    if free < _DISK_NEEDED:
        remedy = "free some space there, or name another folder in the environment variable LTM_EDGE_HOME"
        return [Check("folders", name, "problem", value, remedy)]
    return [Check("folders", name, "ok", value)]


def check_scene_memories(folder: Path) -> list[Check]:
    """The scene memories of the data folder: whether each is whole. Nothing is written."""
    from ltm_edge.errors import MemoryStoreError
    from ltm_edge.memory.exchange import read_store
    from ltm_edge.memory.store import STORE_NAME

    checks = []
    for path in sorted(folder.glob(f"*/{STORE_NAME}")):
        name = f"memory {printable(path.parent.name, 40)}"
        remedy = f"move {printable_path(path.parent)} away and import an export of it"
        try:
            store = read_store(path)
            try:
                problems = store.integrity()
                count = 0 if problems else int(store.rows("SELECT count(*) FROM scenes")[0][0])
            finally:
                store.close()
        except MemoryStoreError as error:
            problems, count = [str(error)], 0
        if problems:
            checks.append(Check("folders", name, "problem", printable(problems[0], 400), remedy))
        else:
            checks.append(Check("folders", name, "ok", f"{count} scenes, whole"))
    return checks


def check_encoding(encoding: str, terminal: bool) -> Check:
    """Whether the terminal shows every script. Pipes always get UTF-8."""
    if not terminal:
        return Check("machine", "output", "ok", "not a terminal: UTF-8 is written")
    if encoding.lower().replace("-", "").replace("_", "") == "utf8":
        return Check("machine", "output", "ok", f"terminal, {encoding}")
    remedy = "set PYTHONUTF8=1 (on Windows also: chcp 65001)"
    return Check("machine", "output", "note", f"terminal, {encoding}: not every script can be shown", remedy)
