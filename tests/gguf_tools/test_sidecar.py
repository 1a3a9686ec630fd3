"""The sidecar folder: what its manifest may say, and what may be in the folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gguf_tools.errors import BadManifest
from gguf_tools.sidecar import ManifestEntry, check_sidecar, is_safe_path, read_manifest, sidecar_folder
from gguf_tools.verify import verify

from .gguf_bytes import chat_model, string

FILES = {"channels/poet.gguf": b"poet", "embedder.gguf": b"", "memory/meta.json": b"{}"}


def manifest(files: dict[str, bytes] | None = None) -> dict[str, Any]:
    content = FILES if files is None else files
    entries = [{"path": p, "sha256": hashlib.sha256(c).hexdigest(), "size": len(c)} for p, c in sorted(content.items())]
    return {"files": entries, "version": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sidecar(tmp_path / "tiny.ltm")


def sidecar(folder: Path) -> Path:
    """A sound folder."""
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest()))
    return folder


def test_sound_folder(folder: Path) -> None:
    assert check_sidecar(folder) == []
    assert read_manifest(folder)[1] == ManifestEntry("embedder.gguf", 0, hashlib.sha256(b"").hexdigest())
    (folder / "empty").mkdir()
    assert check_sidecar(folder) == []


def test_name_of_the_folder() -> None:
    assert sidecar_folder("a/b.gguf") == Path("a/b.ltm")
    assert sidecar_folder("a/b.v1.GGUF") == Path("a/b.v1.ltm")
    assert sidecar_folder("model") == Path("model.ltm")


@pytest.mark.parametrize("path", ["a", "a/b-c_d.E1", "x" * 100, ".hidden", "a/b/c/d/e/f/g/h"])
def test_paths_that_are_allowed(path: str) -> None:
    assert is_safe_path(path)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a\\b", "C:a", "a b", "имя", "a.", "...", "x" * 101),
        *("con", "NUL.txt", "a/com1.gguf", "a\0b", "a\n", "~", "a/b/c/d/e/f/g/h/i", "$HOME", "a*"),
    ],
)
def test_paths_that_are_refused(path: str) -> None:
    assert not is_safe_path(path)


def put(key: str, value: object, index: int = 0) -> Callable[[dict[str, Any]], None]:
    def change(made: dict[str, Any]) -> None:
        made["files"][index][key] = value

    return change


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a list": (lambda m: [m], "must hold 'files'"),
    "no version": (lambda m: m.pop("version") and None, "must hold 'files' (a list) and 'version'"),
    "version 2": (lambda m: m.update(version=2), "has version 2, 1 is known; update ltm-edge"),
    "version true": (lambda m: m.update(version=True), "has version True"),
    "more keys": (lambda m: m.update(more=1), "and nothing else"),
    "files that are no list": (lambda m: m.update(files={}), "'files' (a list)"),
    "too many files": (lambda m: m.update(files=[1] * 10_001), "lists 10001 files, 10000 allowed"),
    "an entry of words": (lambda m: m["files"].append("x"), "files[3] must hold 'path'"),
    "an entry with more": (put("mode", 7), "files[0] must hold"),
    "path upwards": (put("path", "../../etc/passwd"), "files[0].path is '../../etc/passwd'"),
    "absolute path": (put("path", "/etc/passwd"), "files[0].path is '/etc/passwd'"),
    "path of Windows": (put("path", "c:\\x"), "files[0].path"),
    "path with an escape": (put("path", "\x1b[2J"), r"files[0].path is '\x1b[2J'"),
    "path that is a number": (put("path", 5), "files[0].path is 5"),
    "the manifest itself": (put("path", "Manifest.json"), "files[0].path"),
    "hash in capitals": (put("sha256", "A" * 64, 1), "files[1].sha256"),
    "size below zero": (put("size", -1), "files[0].size is -1"),
    "size of truth": (put("size", True), "files[0].size is True"),
    "size of 2^63": (put("size", 1 << 63), "files[0].size"),
    "unsorted": (lambda m: m["files"].reverse(), "in another order"),
    "the same path twice": (put("path", "channels/poet.gguf", 1), "lists 'channels/poet.gguf' twice"),
    "same path in other case": (put("path", "Embedder.gguf", 0), "differ in case only"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_that_is_refused(name: str, folder: Path) -> None:
    change, words = MANIFESTS[name]
    made = manifest()
    changed = change(made)
    (folder / "manifest.json").write_text(json.dumps(changed if isinstance(changed, list) else made))
    with pytest.raises(BadManifest) as caught:
        read_manifest(folder)
    assert words in str(caught.value) and str(caught.value).isprintable()
    assert check_sidecar(folder) == [str(caught.value)]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "isn't JSON"),
        (b"\xff", "isn't JSON"),
        (b"[" * 200_000, "isn't JSON"),
        (b"9" * 10_000, "isn't JSON"),
        (b'{"version": 1, "version": 1, "files": []}', "a key stands there twice"),
        (b" " * ((1 << 20) + 1), "has 1048577 bytes, 1048576 allowed"),
    ],
)
def test_manifest_that_is_no_json(raw: bytes, words: str, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(raw)
    with pytest.raises(BadManifest, match=words):
        read_manifest(folder)


def test_manifest_that_is_missing_a_folder_or_a_link(folder: Path) -> None:
    target = folder / "manifest.json"
    copy = target.rename(folder.parent / "copy.json")
    assert "no such file" in check_sidecar(folder)[0]
    target.mkdir()
    assert "is no regular file" in check_sidecar(folder)[0]
    target.rmdir()
    try:
        target.symlink_to(copy)
    except OSError:
        pytest.skip("no symbolic links here")
    assert "is no regular file" in check_sidecar(folder)[0]


def test_manifest_of_another_bundle(folder: Path) -> None:
    own = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert check_sidecar(folder, own) == []
    [problem] = check_sidecar(folder, "0" * 64)
    assert "isn't the manifest of this bundle" in problem


def test_all_problems_of_a_folder_at_once(folder: Path) -> None:
    (folder / "channels/poet.gguf").write_bytes(b"tamp")
    (folder / "embedder.gguf").unlink()
    (folder / "memory/meta.json").write_bytes(b"{ }")
    (folder / "memory/more.json").write_bytes(b"{}")
    (folder / "имя\u202e").write_bytes(b"")
    found = check_sidecar(folder)
    assert found[:3] == [
        "channels/poet.gguf: has another hash than the manifest says",
        "embedder.gguf: is missing",
        "memory/meta.json: has 3 bytes, the manifest says 2",
    ]
    assert sorted(found[3:]) == ["memory/more.json: isn't in the manifest", r"имя\u202e: isn't in the manifest"]


def moved(path: Path, target: Path) -> Path:
    """Take something out of the folder; returns where it stood."""
    path.rename(target)
    return path


FOLDERS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a missing file": (lambda f: (f / "embedder.gguf").unlink(), ["embedder.gguf: is missing"]),
    "another hash": (
        lambda f: (f / "channels/poet.gguf").write_bytes(b"tamp"),
        ["channels/poet.gguf: has another hash than the manifest says"],
    ),
    "another size": (
        lambda f: (f / "embedder.gguf").write_bytes(b"!"),
        ["embedder.gguf: has 1 bytes, the manifest says 0"],
    ),
    "a file more": (lambda f: (f / "more").write_bytes(b""), ["more: isn't in the manifest"]),
    "a hidden file more": (lambda f: (f / "memory/.x").write_bytes(b""), ["memory/.x: isn't in the manifest"]),
    "a name in other case": (
        lambda f: (f / "embedder.gguf").rename(f / "Embedder.gguf"),
        ["embedder.gguf: is missing", "Embedder.gguf: isn't in the manifest"],
    ),
    "a folder where a file is due": (
        lambda f: ((f / "embedder.gguf").unlink(), (f / "embedder.gguf").mkdir()),
        ["embedder.gguf: is a folder"],
    ),
    "a file where a folder is due": (
        lambda f: moved(f / "channels", f.parent / "outside").write_bytes(b""),
        ["channels/poet.gguf: is missing", "channels: isn't in the manifest"],
    ),
    "a link for a file": (
        lambda f: moved(f / "embedder.gguf", f.parent / "outside").symlink_to(f.parent / "outside"),
        ["embedder.gguf: is, or is behind, a symbolic link"],
    ),
    "a link for a folder": (
        lambda f: moved(f / "channels", f.parent / "outside").symlink_to(f.parent / "outside"),
        ["channels/poet.gguf: is, or is behind, a symbolic link", "channels: isn't in the manifest"],
    ),
    "a named pipe": (
        lambda f: ((f / "embedder.gguf").unlink(), os.mkfifo(f / "embedder.gguf")),
        ["embedder.gguf: is no regular file"],
    ),
}


@pytest.mark.skipif(os.name == "nt", reason="links need rights there, and there are no named pipes")
@pytest.mark.parametrize("name", FOLDERS)
def test_folder_that_is_refused(name: str, folder: Path) -> None:
    change, expected = FOLDERS[name]
    change(folder)
    assert check_sidecar(folder) == expected


def test_verify_looks_at_the_sidecar_folder(folder: Path) -> None:
    own = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    entries = {"ltm.format_version": "1", "ltm.name": "tiny", "ltm.overlay": "x", "ltm.sidecar.sha256": own}
    bundle = chat_model([string(k, v) for k, v in entries.items()]).write(folder.with_suffix(".gguf"))
    assert verify(bundle).problems == ()
    (folder / "embedder.gguf").write_bytes(b"!")
    assert verify(bundle).problems == ("embedder.gguf: has 1 bytes, the manifest says 0",)
