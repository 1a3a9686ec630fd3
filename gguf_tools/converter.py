"""What every conversion to a GGUF file does, in the one order that is safe."""

from __future__ import annotations

import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf_tools.bundle_writer import BundleWriter, refuse_existing
from gguf_tools.entries import Entry
from gguf_tools.errors import BadSource, GgufError, ManyProblems, OutputExists
from gguf_tools.files import check_space, room_for
from gguf_tools.ltm import ltm_entries
from gguf_tools.reader import read_gguf
from gguf_tools.sidecar import check_sidecar
from gguf_tools.writer import Bytes, TensorSpec

__all__ = ["Converter", "Plan", "Progress", "Written"]

Progress = Callable[[str, int, int], None]
"""Told of progress: what is being done, bytes done, bytes in all."""

_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What a conversion will write.

    Attributes:
        entries: the model's metadata.
        ltm: the bundle's.
        tensors: in order.
    """

    entries: tuple[Entry, ...]
    ltm: Mapping[str, str]
    tensors: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What a conversion wrote.

    Attributes:
        target: the GGUF file.
        nbytes: its bytes.
        sidecar_sha256: hash of the sidecar folder's manifest; None if there is no folder.
        seconds: all of it, checks included.
    """

    target: Path
    nbytes: int
    sidecar_sha256: str | None
    seconds: float


class Converter(ABC):
    """Owns the sequence: refuse existing output, check everything, write, read back and compare, give it its name."""

    def __init__(self, target: Path, *, force: bool = False, progress: Progress | None = None) -> None:
        self.target = target
        self.force = force
        self._progress = progress

    def run(self) -> Written:
        """Convert.

        Raises:
            ManyProblems: what is wrong with the input, all of it; nothing was written.
            GgufError: something went wrong while writing; nothing was left behind.
            OSError: the disk refuses; a full one is a `DiskFull`.
        """
        start = time.monotonic()
        try:
            problems = [*self._output_problems(), *self.check()]
            if problems:
                raise ManyProblems(self.target, problems)
            with room_for(self.target), BundleWriter(self.target, force=self.force) as writer:
                self.add_files(writer)
                plan = self.plan()
                total = sum(spec.nbytes for spec in plan.tensors)
                check_space(self.target, total)
                writer.begin(plan.entries, plan.ltm, plan.tensors)
                done = 0
                for spec in plan.tensors:
                    writer.tensor(spec.name, self._told(self.chunks(spec.name), "writing", done, total))
                    done += spec.nbytes
                writer.finish()
                try:
                    self._compare(writer, plan, total)
                except GgufError as error:  # what stands under a temporary name is told by the final one
                    raise type(error)(self.target, error.what, offset=error.offset, remedy=error.remedy) from error
                self.close()  # before the rename: Windows keeps the name of an open file
                nbytes = writer.temporary.stat().st_size
                writer.commit()
                return Written(self.target, nbytes, writer.sidecar_sha256, time.monotonic() - start)
        finally:
            self.close()

    @abstractmethod
    def check(self) -> list[str]:
        """Everything that is wrong with the input, a line each."""

    def add_files(self, writer: BundleWriter) -> None:  # noqa: B027  (a bundle may have none)
        """Add the sidecar folder's files."""

    @abstractmethod
    def plan(self) -> Plan:
        """Metadata and tensors."""

    @abstractmethod
    def chunks(self, name: str) -> Iterable[Bytes]:
        """A tensor's bytes."""

    def close(self) -> None:  # noqa: B027  (nothing may be open)
        """Let go of what `check` opened."""

    def tell(self, what: str, done: int, total: int) -> None:
        """Report progress."""
        if self._progress is not None:
            self._progress(what, done, total)

    def _output_problems(self) -> list[str]:
        if not self.target.parent.is_dir():
            return [str(BadSource(self.target, f"there is no folder {self.target.parent}", remedy="make it first"))]
        if self.target.is_dir():
            return [str(OutputExists(self.target, "is a folder", remedy="name the file to write"))]
        if self.force:
            return []
        try:
            refuse_existing(self.target)
        except GgufError as error:
            return [str(error)]
        return []

    def _told(self, chunks: Iterable[Bytes], what: str, done: int, total: int) -> Iterator[Bytes]:
        for chunk in chunks:
            yield chunk
            done += memoryview(chunk).nbytes
            self.tell(what, done, total)

    def _compare(self, writer: BundleWriter, plan: Plan, total: int) -> None:
        """Read what was written and compare it with what should have been."""
        path = writer.temporary
        info = read_gguf(path)
        ltm_entries(info)
        pairs = zip(info.tensors, plan.tensors, strict=False)
        broken = [found.name for found, meant in pairs if (found.name, found.type) != (meant.name, meant.type)]
        done = 0
        with path.open("rb") as stream:
            for tensor in info.tensors:
                stream.seek(tensor.offset)
                crc, left = 0, tensor.nbytes
                while left and (data := stream.read(min(left, _CHUNK))):
                    crc = zlib.crc32(data, crc)
                    left -= len(data)
                    done += len(data)
                    self.tell("checking", done, total)
                if crc != writer.checksums[tensor.name]:
                    broken.append(tensor.name)
        sidecar = writer.temporary_sidecar
        problems = check_sidecar(sidecar, writer.sidecar_sha256) if sidecar is not None else []
        if broken or problems or len(info.tensors) != len(plan.tensors):
            found = broken[0] if broken else problems[0] if problems else "a tensor is missing"
            what = f"isn't what was written ({found})"
            raise GgufError(self.target, what, remedy="the disk may be failing; try another")
