"""What a release depends on: one version, one release of llama-cpp-python, workflows that GitHub takes, slim wheels."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import ltm_edge
from ltm_edge.native import LLAMA_CPP_PYTHON
from tools import check_version, slim_wheel

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def sources() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    return [ROOT / name for name in listed] or pytest.skip("not a git checkout")


def test_the_version_stands_once():
    assert check_version.version() == ltm_edge.__version__
    spelled = re.compile(rf"""version\w*["']?\s*[=:]\s*["']{re.escape(ltm_edge.__version__)}["']""", re.IGNORECASE)
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if path.suffix in (".py", ".toml", ".cmake", ".txt", ".cpp", ".h", ".md", ".yml") and path.is_file()
        if spelled.search(path.read_text(encoding="utf-8"))
    ]
    assert found == ["ltm_edge/__init__.py"]


def test_the_installed_package_has_that_version():
    try:
        assert importlib.metadata.version("ltm-edge") == ltm_edge.__version__
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed")


PINNED = ("pyproject.toml", "Makefile", "CMakeLists.txt", "README.md", "docs/gpu.md", "tools/fetch_vocabularies.py")


@pytest.mark.parametrize("name", PINNED)
def test_llama_cpp_python_is_pinned_to_one_release_everywhere(name: str):
    found = re.findall(r"llama-cpp-python==([0-9.]*[0-9])", (ROOT / name).read_text(encoding="utf-8"))
    assert found and set(found) == {LLAMA_CPP_PYTHON}


def test_check_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "ltm_edge").mkdir()
    (tmp_path / "ltm_edge" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [1.2.2] - 2026-01-31\n")
    monkeypatch.setattr(check_version, "ROOT", tmp_path)
    assert "CHANGELOG" in check_version.problem("v1.2.3")
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [1.2.3] - 2026-02-28\n")
    assert check_version.problem("v1.2.3") == "" == check_version.problem("main")
    assert "1.2.3" in check_version.problem("v1.2.4")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_follow_github_s_schema(path: Path):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash_and_jobs_may_do_no_more_than_they_need(path: Path):
    text = path.read_text(encoding="utf-8")
    for action in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    workflow = yaml.safe_load(text)
    may = {"publish": {"id-token"}, "release": {"contents", "id-token", "attestations"}}
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 120, name
        writes = {key for key, value in job.get("permissions", {}).items() if value == "write"}
        assert writes <= may.get(name, set()), name
    assert "secrets." not in text and "pull_request_target" not in text


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_files_that_workflows_run_are_there(path: Path):
    for name in re.findall(r"(?:python3?|bash) (tools/\S+)", path.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name


def wheel(folder: Path) -> Path:
    """A wheel like llama-cpp-python's: each library three times, a back end of its own."""
    path = folder / "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
    files = {
        "llama_cpp/__init__.py": b"__version__ = '0.3.36'\n",
        "llama_cpp/lib/libllama.so": b"llama",
        "llama_cpp/lib/libllama.so.0": b"llama",
        "llama_cpp/lib/libllama.so.0.5.0": b"llama",
        "llama_cpp/lib/libggml-cpu-haswell.so": b"cpu",
        "llama_cpp/lib/libggml-cpu-haswell.so.0": b"cpu",
        "lib/libllama.so": b"llama",
        "lib/libllama.so.0": b"llama",
        "lib/libllama-common.so": b"common",
        "lib/cmake/llama/llama-config.cmake": b"set(LLAMA_VERSION      0.5.0-dev)\nset(LLAMA_BUILD_COMMIT 0c1e570)\n",
        "llama_cpp_python-0.3.36.dist-info/METADATA": b"Name: llama_cpp_python\nVersion: 0.3.36\nLicense: MIT\n",
        "llama_cpp_python-0.3.36.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-linux_x86_64\n",
        "llama_cpp_python-0.3.36.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path


def test_a_slim_wheel_holds_what_is_opened_and_its_record_is_right(tmp_path: Path):
    slim = slim_wheel.slim(wheel(tmp_path), tmp_path / "out", "1avx2")
    assert slim.name == "llama_cpp_python-0.3.36-1avx2-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(slim) as archive:
        names = archive.namelist()
        assert [n for n in names if ".so" in n] == [
            "llama_cpp/lib/libllama.so",
            "llama_cpp/lib/libllama.so.0",
            "llama_cpp/lib/libggml-cpu-haswell.so",
            "lib/libllama.so",
        ]
        assert b"Build: 1avx2" in archive.read("llama_cpp_python-0.3.36.dist-info/WHEEL")
        rows = list(csv.reader(io.StringIO(archive.read("llama_cpp_python-0.3.36.dist-info/RECORD").decode())))
        assert [row[0] for row in rows] == names
        for name, digest, size in rows[:-1]:
            data = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert digest == f"sha256={expected}" and int(size) == len(data)


def test_the_sbom_is_valid_and_names_what_is_compiled_in(tmp_path: Path):
    pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is installed by `make wheelhouse`")
    from tools import wheel_sbom

    path = wheel(tmp_path)
    text = wheel_sbom.sbom([path], ROOT)
    assert '"llama.cpp"' in text and "0.5.0-dev+0c1e570" in text
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
