"""What is said when llama.cpp isn't the one that the extension was built for, or this CPU can't run it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ltm_edge.native import LLAMA_CPP_PYTHON, core, llama_lib_folder
from ltm_edge.native_check import (
    check_back_end,
    check_build,
    check_cpu,
    check_release,
    found_release,
    missing_instructions,
)

ROOT = Path(__file__).parents[2]
INSTALL = f"llama-cpp-python=={LLAMA_CPP_PYTHON}"


def folder() -> Path:
    found = llama_lib_folder()
    assert found is not None
    return found


def test_what_is_installed_here_fits():
    assert found_release(folder()) == LLAMA_CPP_PYTHON == core().built_for
    assert core().llama_mismatch() == ""
    check_release(folder(), LLAMA_CPP_PYTHON)
    check_build(core(), folder(), LLAMA_CPP_PYTHON)
    check_cpu(core(), folder(), LLAMA_CPP_PYTHON)


@pytest.mark.parametrize(
    ("text", "found"),
    [("__version__ = '0.3.35'\n", "0.3.35"), ("from .llama import *\n", "does not load"), ("\xff", "load")],
)
def test_another_release_is_refused_before_its_libraries_are_loaded(tmp_path: Path, text: str, found: str):
    package = tmp_path / "llama_cpp"
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").write_bytes(text.encode("latin-1"))
    (package / "lib" / "libllama.so").write_bytes(b"not a library: loading it says so")
    said = load(PYTHONPATH=str(tmp_path))
    assert INSTALL in said and found in said


def test_an_extension_of_another_release_is_refused():
    with pytest.raises(ImportError, match="install ltm-edge again"):
        check_build(SimpleNamespace(built_for="0.3.1"), folder(), LLAMA_CPP_PYTHON)


def load(**env: str) -> str:
    """Load the extension in a process of its own; what it raises."""
    code = "from ltm_edge.native import core\ntry:\n core()\nexcept ImportError as error:\n print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=os.environ | env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shim(tmp_path: Path):
    """Makes a library that stands before libllama."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")

    def build(source: str) -> str:
        (tmp_path / "shim.c").write_text(source)
        library = str(tmp_path / "shim.so")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, str(tmp_path / "shim.c")], check=True)
        return library

    return build


def test_a_library_of_another_version_is_refused(shim):
    library = shim('const char * llama_version(void) { return "0.1.0"; }')
    said = load(LD_PRELOAD=library)
    assert "libllama is 0.1.0" in said and INSTALL in said


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sizes can be measured on x86-64 only")
@pytest.mark.parametrize("name", ["llama_model_params", "llama_context_params"])
def test_a_library_with_another_struct_is_refused(shim, name: str):
    function = name.replace("params", "default_params")
    source = "struct big { unsigned char bytes[1000]; };\n"
    source += (
        f"struct big {function}(void) {{ struct big b; for (int i = 0; i < 1000; ++i) b.bytes[i] = 7; return b; }}"
    )
    said = load(LD_PRELOAD=shim(source))
    assert f"{name} has 1000 bytes there" in said and INSTALL in said


def test_a_cpu_without_the_instructions_is_told_so_before_they_run():
    if not core().cpu_features() or not (folder() / "libggml.so").exists():
        pytest.skip("this CPU can't be asked, or the back end is chosen for it")
    with pytest.raises(ImportError, match=r"built for CPUs with .*avx2.*--no-binary") as raised:
        check_cpu(SimpleNamespace(cpu_features=lambda: ["sse3", "ssse3"]), folder(), LLAMA_CPP_PYTHON)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_each_library_is_loaded_once():
    code = "from ltm_edge.native import core; core(); print(open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(re.findall(r"/(lib(?:llama|ggml)[^/\s]*)$", done.stdout, re.MULTILINE))
    names = [name.partition(".so")[0] for name in loaded]
    assert "libllama" in names and len(names) == len(set(names)), loaded


def test_no_back_end_for_this_cpu():
    check_back_end(core(), folder(), LLAMA_CPP_PYTHON)
    with pytest.raises(ImportError, match=r"no back end .* pip install"):
        check_back_end(SimpleNamespace(system_info=lambda: " "), folder(), LLAMA_CPP_PYTHON)


def test_missing_instructions():
    assert missing_instructions(lambda name: name in ("avx2", "avx512"), ["sse3", "avx2"]) == ["avx512"]
    assert missing_instructions(lambda name: False, []) == []


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads /proc/cpuinfo")
def test_the_cpu_s_features_are_those_that_the_system_lists():
    listed = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    if listed is None:
        pytest.skip("no x86")
    flags = set(listed[1].split())
    names = {"avx512": "avx512f", "avx512_vbmi": "avx512vbmi", "sse3": "pni"}
    for name in ("sse3", "ssse3", "avx", "avx2", "bmi2", "fma", "avx512", "avx512_vbmi", "avx512_vnni", "avx512_bf16"):
        assert (name in core().cpu_features()) == (names.get(name, name) in flags), name
