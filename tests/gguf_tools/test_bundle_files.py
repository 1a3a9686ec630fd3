"""Writing and opening bundles: the same bytes each time, nothing half-written, no part of a damaged sidecar folder."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gguf_tools import errors, keys
from gguf_tools.bundle_reader import BundleReader
from gguf_tools.bundle_writer import BundleWriter
from gguf_tools.entries import entries_of
from gguf_tools.reader import read_gguf
from gguf_tools.sidecar import sidecar_folder
from gguf_tools.verify import verify
from gguf_tools.writer import TensorSpec, WrongStep

from .gguf_bytes import chat_model

LTM = {keys.LTM_FORMAT: "1", keys.LTM_NAME: "tiny", keys.LTM_OVERLAY: "ltm_overlay: {version: 1, name: tiny}\n"}
FILES = {"channels/poet.gguf": b"poet", "integration_log.json": b"{}", "memory/meta.json": b"[]"}


def write(target: Path, *, files: dict[str, bytes] | None = None, force: bool = False, stop: str = "") -> Path:
    """A small bundle; `stop` names the step after which it goes wrong."""
    source = target.parent / "source.gguf"
    info = read_gguf(chat_model().write(source))
    with BundleWriter(target, force=force) as writer:
        for path, content in (FILES if files is None else files).items():
            writer.add_file(path, content)
        if stop == "files":
            raise KeyboardInterrupt
        spec = [TensorSpec(t.name, t.shape, t.type) for t in info.tensors]
        writer.begin(entries_of(info), LTM, spec)
        if stop == "header":
            raise KeyboardInterrupt
        for tensor in info.tensors:
            writer.tensor(tensor.name, [info.stamp.read(tensor.offset, tensor.nbytes)])
        writer.finish()
        if stop == "data":
            raise KeyboardInterrupt
        writer.commit()
    source.unlink()
    return target


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    bundle = BundleReader.open(write(tmp_path / "tiny.gguf"))
    assert bundle.name == "tiny" and bundle.is_bundle
    assert {path: bundle.file(path).read_bytes() for path in bundle.files} == FILES
    assert list(bundle.channels) == ["poet"]
    assert bundle.documents == {"ltm_overlay_config.yaml": LTM[keys.LTM_OVERLAY]}
    assert verify(tmp_path / "tiny.gguf").problems == ()
    assert names(tmp_path) == ["tiny.gguf", "tiny.ltm"]
    with pytest.raises(KeyError):
        bundle.file("../source.gguf")


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "tiny.gguf")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_without_files_there_is_no_folder(tmp_path: Path) -> None:
    bundle = BundleReader.open(write(tmp_path / "tiny.gguf", files={}))
    assert bundle.folder is None and keys.LTM_SIDECAR_SHA256 not in bundle.entries
    assert names(tmp_path) == ["tiny.gguf"]


def test_plain_model_is_no_bundle(tmp_path: Path) -> None:
    bundle = BundleReader.open(chat_model().write(tmp_path / "plain.gguf"))
    assert not bundle.is_bundle and bundle.name is None and bundle.documents == {} and bundle.channels == {}


@pytest.mark.parametrize("stop", ["files", "header", "data"])
def test_interrupted_at_any_step_leaves_nothing(stop: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "tiny.gguf", stop=stop)
    assert names(tmp_path) == ["source.gguf"]


@pytest.mark.parametrize("stop", ["files", "header", "data"])
def test_interrupted_replacement_keeps_the_old_bundle(stop: str, tmp_path: Path) -> None:
    write(tmp_path / "tiny.gguf")
    before = tree(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "tiny.gguf", files={"memory/meta.json": b"new"}, force=True, stop=stop)
    (tmp_path / "source.gguf").unlink()
    assert tree(tmp_path) == before


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "tiny.gguf")
    assert names(tmp_path) == ["source.gguf"]


def test_a_rename_that_fails_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file can't be replaced after the sidecar folder was: the old folder has to come back."""
    write(tmp_path / "tiny.gguf")
    before = tree(tmp_path)
    real = Path.replace

    def stubborn(self: Path, target: Path) -> Path:
        if Path(target).suffix == ".gguf":
            raise PermissionError(errno.EACCES, "in use")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", stubborn)
    with pytest.raises(PermissionError):
        write(tmp_path / "tiny.gguf", files={"memory/meta.json": b"new"}, force=True)
    monkeypatch.undo()
    (tmp_path / "source.gguf").unlink()
    assert tree(tmp_path) == before
    assert names(tmp_path) == ["tiny.gguf", "tiny.ltm"]


def test_existing_output_is_kept_unless_forced(tmp_path: Path) -> None:
    target = write(tmp_path / "tiny.gguf")
    with pytest.raises(errors.OutputExists, match="--force"):
        write(target)
    write(target, files={"memory/meta.json": b"new"}, force=True)
    assert tree(sidecar_folder(target)).keys() == {"manifest.json", "memory/meta.json"}
    write(target, files={}, force=True)
    BundleReader.open(target)
    assert names(tmp_path) == ["source.gguf", "tiny.gguf"] or names(tmp_path) == ["tiny.gguf"]


def test_a_strangers_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "tiny.ltm").mkdir()
    (tmp_path / "tiny.ltm" / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(errors.OutputExists):
            write(tmp_path / "tiny.gguf", force=force)
    assert (tmp_path / "tiny.ltm" / "thesis.txt").read_text() == "years of work"


def _missing(folder: Path) -> None:
    (folder / "integration_log.json").unlink()


def _other_hash(folder: Path) -> None:
    (folder / "integration_log.json").write_bytes(b"[]")


def _extra(folder: Path) -> None:
    (folder / "extra.txt").write_bytes(b"")


def _link(folder: Path) -> None:
    (folder / "integration_log.json").unlink()
    (folder / "integration_log.json").symlink_to("memory/meta.json")


def _linked_folder(folder: Path) -> None:
    shutil.move(folder / "memory", folder.parent / "elsewhere")
    (folder / "memory").symlink_to(folder.parent / "elsewhere")


def _other_case(folder: Path) -> None:
    (folder / "channels" / "poet.gguf").rename(folder / "channels" / "Poet.gguf")


def _folder_for_file(folder: Path) -> None:
    (folder / "integration_log.json").unlink()
    (folder / "integration_log.json").mkdir()


def _no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _edited_manifest(folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b"poet.gguf", b"../x.gguf"))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing file": (_missing, "integration_log.json: is missing"),
    "other content of the same size": (_other_hash, "another hash"),
    "file that isn't listed": (_extra, "extra.txt: isn't in the manifest"),
    "link instead of a file": (_link, "symbolic link"),
    "link instead of a folder": (_linked_folder, "symbolic link"),
    "name in another case": (_other_case, "channels/poet.gguf: is missing"),
    "folder instead of a file": (_folder_for_file, "is a folder"),
    "no folder at all": (_no_folder, "no such file"),
    "manifest of another bundle": (_edited_manifest, "isn't the manifest of this bundle"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_sidecar_folder_is_refused_whole(name: str, tmp_path: Path) -> None:
    damage, words = DAMAGE[name]
    target = write(tmp_path / "tiny.gguf")
    damage(sidecar_folder(target))
    with pytest.raises(errors.BadManifest) as caught:
        BundleReader.open(target)
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_hashes_may_be_remembered(tmp_path: Path) -> None:
    """A caller with a cache of hashes saves reading hundreds of megabytes at every start."""
    target = write(tmp_path / "tiny.gguf")
    asked: list[str] = []

    def remembered(path: Path) -> str:
        asked.append(path.name)
        return "0" * 64

    with pytest.raises(errors.BadManifest, match="another hash"):
        BundleReader.open(target, hasher=remembered)
    assert asked == ["poet.gguf", "integration_log.json", "meta.json"]


def test_steps_in_another_order_are_refused(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "tiny.gguf") as writer:
        with pytest.raises(WrongStep):
            writer.commit()
        for path in ("/etc/x", "../x", "a/../b", "CON", "a\\b"):
            with pytest.raises(ValueError, match="no path"):
                writer.add_file(path, b"")
        writer.begin([], LTM, [])
        with pytest.raises(WrongStep):
            writer.add_file("late.json", b"")
    assert names(tmp_path) == []
