"""Writing a bundle: its sidecar folder, then its GGUF, both under temporary names until all is on the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from gguf_tools import keys
from gguf_tools.entries import Entry, text_entry
from gguf_tools.errors import GgufError, OutputExists
from gguf_tools.files import keep_permissions, remove, sync_folder, temporary_folder, temporary_sibling
from gguf_tools.ltm import MAX_TEXT
from gguf_tools.sidecar import is_safe_path, read_manifest, sidecar_folder, write_manifest
from gguf_tools.writer import Bytes, GgufWriter, TensorSpec, WrongStep

__all__ = ["BundleWriter", "refuse_existing"]

_CHUNK = 8 << 20


class _Step(IntEnum):
    SIDECAR = 0
    DATA = 1
    READY = 2
    DONE = 3


def refuse_existing(target: Path) -> None:
    """Refuse to write where a bundle, or a sidecar folder, is already.

    Raises:
        OutputExists: something is there.
    """
    for path in (target, sidecar_folder(target)):
        if path.exists() or path.is_symlink():
            raise OutputExists(path, "is there already")


class BundleWriter:
    """Writes one bundle, in this order: `add_file` for each sidecar file, `begin`, `tensor` for each, `commit`.

    A context manager: unless `commit` was reached, nothing is left under the final names, nor under temporary ones.
    The same calls give the same bytes.
    """

    def __init__(self, target: str | os.PathLike[str], *, force: bool = False) -> None:
        """Start a bundle.

        Args:
            target: the GGUF file; the sidecar folder stands beside it.
            force: replace what is there.

        Raises:
            OutputExists: the file or its sidecar folder is there and `force` isn't given.
            OSError: the folder can't be written to.
        """
        self.target = Path(target)
        self._final_sidecar = sidecar_folder(self.target)
        if not force:
            refuse_existing(self.target)
        elif self._final_sidecar.exists() and not _is_sidecar(self._final_sidecar):
            raise OutputExists(self._final_sidecar, "is there and no sidecar folder", remedy="move it out of the way")
        self._force = force
        self._step = _Step.SIDECAR
        self._sidecar: Path | None = None
        self._file: Path | None = temporary_sibling(self.target)
        self._stream: BinaryIO | None = self._file.open("w+b")
        self._writer = GgufWriter(self._stream)
        self.sidecar_sha256: str | None = None

    @property
    def temporary(self) -> Path:
        """The GGUF file before `commit`."""
        if self._file is None:
            raise WrongStep("the bundle is written or was given up")
        return self._file

    @property
    def temporary_sidecar(self) -> Path | None:
        """The sidecar folder before `commit`; None if no file was added."""
        return self._sidecar

    @property
    def checksums(self) -> Mapping[str, int]:
        """CRC-32 of each tensor's data as it was written."""
        return self._writer.checksums

    def add_file(self, path: str, content: bytes | Path) -> None:
        """Add a file to the sidecar folder.

        Args:
            path: relative, as FORMAT.md allows.
            content: its bytes, or a file to copy.
        """
        self._expect(_Step.SIDECAR)
        if not is_safe_path(path):
            raise ValueError(f"{path!r} is no path that a sidecar folder may hold")
        if self._sidecar is None:
            self._sidecar = temporary_folder(self._final_sidecar)
        target = self._sidecar / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            if isinstance(content, Path):
                with content.open("rb") as source:
                    while chunk := source.read(_CHUNK):
                        out.write(chunk)
            else:
                out.write(content)
            out.flush()
            os.fsync(out.fileno())

    def begin(self, base: Iterable[Entry], ltm: Mapping[str, str], tensors: Iterable[TensorSpec]) -> None:
        """Close the sidecar folder and write the GGUF's header: the base's entries, then `ltm.*` sorted by key.

        Raises:
            ValueError: an `ltm.*` value is too long or its key isn't one.
        """
        self._expect(_Step.SIDECAR)
        texts = dict(ltm)
        if self._sidecar is not None:
            self.sidecar_sha256 = texts[keys.LTM_SIDECAR_SHA256] = write_manifest(self._sidecar)
        for key, value in texts.items():
            if not key.startswith(keys.LTM_PREFIX) or len(value.encode("utf-8")) > MAX_TEXT:
                raise ValueError(f"{key}: no entry of a bundle, or more than {MAX_TEXT} bytes")
        self._writer.begin([*base, *(text_entry(key, texts[key]) for key in sorted(texts))], tensors)
        self._step = _Step.DATA

    def tensor(self, name: str, chunks: Iterable[Bytes]) -> None:
        """Write the next tensor's data; see `GgufWriter.tensor`."""
        self._expect(_Step.DATA)
        self._writer.tensor(name, chunks)

    def finish(self) -> None:
        """Have all of it on the disk, still under the temporary names, so that it can be looked at."""
        self._expect(_Step.DATA)
        assert self._stream is not None
        self._writer.end()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._stream = None
        self._step = _Step.READY

    def commit(self) -> None:
        """Give the bundle its name. The sidecar folder comes first: without it the file would be refused.

        Raises:
            OutputExists: something took the name meanwhile and `force` isn't given.
        """
        self._expect(_Step.READY)
        if not self._force:
            refuse_existing(self.target)
        old = temporary_folder(self._final_sidecar) if self._final_sidecar.exists() else None
        try:
            if old is not None:
                self._final_sidecar.replace(old / "old")
            if self._sidecar is not None:
                for folder in (self._sidecar, *(p for p in self._sidecar.rglob("*") if p.is_dir())):
                    keep_permissions(folder)
                    sync_folder(folder)
                self._sidecar.replace(self._final_sidecar)
            keep_permissions(self.temporary)
            self.temporary.replace(self.target)
        except BaseException:
            if old is not None and (old / "old").exists():  # without it the old file would be refused
                if self._final_sidecar.exists():
                    remove(self._final_sidecar)
                (old / "old").replace(self._final_sidecar)
            elif old is None and self._sidecar is not None and not self._sidecar.exists():
                remove(self._final_sidecar)
            raise
        finally:
            remove(old)
        sync_folder(self.target.parent)
        self._file = self._sidecar = None
        self._step = _Step.DONE

    def close(self) -> None:
        """Give up what was not committed."""
        if self._stream is not None:
            with contextlib.suppress(OSError):  # a full disk refuses what is still buffered
                self._stream.close()
            self._stream = None
        remove(self._file)
        remove(self._sidecar)
        self._file = self._sidecar = None

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _expect(self, step: _Step) -> None:
        if self._step is not step:
            raise WrongStep(f"the bundle is at {self._step.name}, this belongs to {step.name}")


def _is_sidecar(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except GgufError:
        return False
    return True
