"""What a user may name as a model, and what is said about everything else: one line with the remedy."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ltm_edge.errors import ModelError
from ltm_edge.models import resolve_model


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(architecture: str = "llama", *, weights: bool = True, tokens: bool = True, **texts: str | int) -> bytes:
    """A small GGUF; keyword `a__b` stands for the key `a.b`."""
    pairs: dict[str, str | int] = {"general.architecture": architecture}
    pairs |= {key.replace("__", "."): value for key, value in texts.items()}
    entries = [
        text(key) + (struct.pack("<I", 8) + text(v) if isinstance(v, str) else struct.pack("<II", 4, v))
        for key, v in pairs.items()
    ]
    if tokens:
        entries.append(text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 1) + text("a"))
    head = b"GGUF" + struct.pack("<IQQ", 3, int(weights), len(entries)) + b"".join(entries)
    if not weights:
        return head
    head += text("token_embd.weight") + struct.pack("<IQIQ", 1, 8, 0, 0)
    return head + bytes(-len(head) % 32) + bytes(32)


def refused(argument: str | os.PathLike[str]) -> str:
    with pytest.raises(ModelError) as caught:
        resolve_model(argument)
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_chat_model(tmp_path: Path) -> None:
    (tmp_path / "модель").write_bytes(gguf())
    assert resolve_model(tmp_path / "модель") == tmp_path / "модель"
    assert resolve_model(str(tmp_path / "модель")) == tmp_path / "модель"


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "m.gguf").write_bytes(gguf())
    assert resolve_model("~/m.gguf") == tmp_path / "m.gguf"


FILES: dict[str, tuple[Callable[[], bytes], list[str]]] = {
    "text file": (lambda: b"Once upon a time there was a file.", ["is a text file", "name a GGUF file"]),
    "web page": (lambda: b"<!DOCTYPE html><html></html>", ["a web page", "download the file itself"]),
    "empty": (lambda: b"", ["is empty", "name a GGUF file"]),
    "truncated header": (lambda: gguf()[:90], ["ends inside", "fetch the file again"]),
    "truncated data": (lambda: gguf()[:-8], ["the data of tensor 'token_embd.weight' ends", "fetch the file again"]),
    "vocabulary": (lambda: gguf(weights=False), ["a vocabulary and no weights", "name the file with the model itself"]),
    "embedding": (lambda: gguf("bert"), ["is an embedding model", "name a chat model"]),
    "pooling": (lambda: gguf(llama__pooling_type=1), ["is an embedding model (it pools", "name a chat model"]),
    "adapter": (
        lambda: gguf(general__type="adapter", adapter__type="lora"),
        ["is an adapter", "name the model that it was made for"],
    ),
    "projector": (lambda: gguf("clip"), ["is a projector", "name the model that it belongs to"]),
    "later part": (lambda: gguf(split__no=2, split__count=3), ["part 3 of 3", "part 1 is the one to name"]),
    "image model": (lambda: gguf("flux", tokens=False), ["has no vocabulary", "name a chat model"]),
    "hostile reason": (lambda: gguf(general__type="\x1b[2J\nx"), [r"\x1b[2J\nx", "name a chat model"]),
}


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_no_chat_model(name: str, tmp_path: Path) -> None:
    make, words = FILES[name]
    file = tmp_path / "m.gguf"
    file.write_bytes(make())
    message = refused(file)
    assert message.startswith(f"{file}: ")
    for word in words:
        assert word in message


def test_missing_file_with_near_names(tmp_path: Path) -> None:
    (tmp_path / "SmolLM2-135M.gguf").write_bytes(b"")
    (tmp_path / "unrelated.txt").write_bytes(b"")
    message = refused(tmp_path / "smollm2-135m.ggu")
    assert message == f"{tmp_path / 'smollm2-135m.ggu'}: no such file; the nearest names there: SmolLM2-135M.gguf"


def test_missing_file_with_other_models(tmp_path: Path) -> None:
    for i in range(7):
        (tmp_path / f"{i}.gguf").write_bytes(b"")
    assert refused(tmp_path / "something-else").endswith(": 0.gguf, 1.gguf, 2.gguf, 3.gguf, 4.gguf …")


def test_missing_file_alone_and_missing_folder(tmp_path: Path) -> None:
    assert "nothing is downloaded" in refused(tmp_path / "model.gguf")
    assert f"no folder {tmp_path / 'none'}" in refused(tmp_path / "none" / "model.gguf")
    assert "no folder" in refused("TheBloke/Some-Model-GGUF")


def test_names_of_other_files_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    try:
        (tmp_path / "evil\x1b[31m.gguf").write_bytes(b"")
    except OSError:
        pytest.skip("this file system refuses such names")
    assert r"evil\x1b[31m.gguf" in refused(tmp_path / "evil.gguf")


@pytest.mark.parametrize("name", ["", "  ", "a\0b"])
def test_names_that_are_none(name: str) -> None:
    assert "name" in refused(name)


def test_name_beyond_what_the_system_takes(tmp_path: Path) -> None:
    assert "x" * 100 in refused(str(tmp_path / ("x" * 5000)))


def test_bundle_folder_has_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "ltm_overlay_config.yaml").write_text("ltm_overlay: {version: 1}\n")
    message = refused(tmp_path)
    assert f"ltm-edge convert {tmp_path} --base BASE.gguf -o OUT.gguf" in message


def test_folders(tmp_path: Path) -> None:
    assert "a folder without a GGUF file" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model-00001-of-00002.safetensors").write_text("")
    assert "Hugging Face model folder" in refused(tmp_path) and "convert_hf_to_gguf.py" in refused(tmp_path)
    (tmp_path / "b.gguf").write_text("")
    (tmp_path / "a.GGUF").write_text("")
    assert refused(tmp_path).endswith("name one of the GGUF files in it: a.GGUF, b.gguf")


def test_split_model_with_and_without_its_parts(tmp_path: Path) -> None:
    first = tmp_path / "m-00001-of-00006.gguf"
    first.write_bytes(gguf(split__no=0, split__count=6))
    assert "are missing: m-00002-of-00006.gguf, m-00003-of-00006.gguf, m-00004-of-00006.gguf and 2 more" in refused(
        first
    )
    for number in range(2, 7):
        (tmp_path / f"m-{number:05}-of-00006.gguf").write_bytes(b"")
    assert resolve_model(first) == first


def test_no_argument_without_the_demo_model(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    def missing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ModelError, match=r"the demo model isn't installed .*name a GGUF file, or install it: pip"):
        resolve_model(None)
