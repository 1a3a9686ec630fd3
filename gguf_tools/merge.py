"""The tensors of a merged model, a few rows at a time: dequantise, add, quantise again, in several threads.

What a tensor costs in memory doesn't depend on its size, only the LoRA's own factors do.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from gguf_tools.errors import BadLora, BadSource, ChangedFile, UnsupportedType
from gguf_tools.lora import Delta, Lora, Replacement
from gguf_tools.printable import printable
from gguf_tools.quants import can_read, can_write, dequantise, quantise, writable_types
from gguf_tools.records import GgufInfo, TensorInfo
from gguf_tools.types import TensorType
from gguf_tools.writer import Bytes, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

__all__ = ["MergedTensors", "use_one_blas_thread"]

_COPY = 8 << 20
_ELEMENTS = 2 << 20  # of one piece of work: 8 MiB as float32
_THREADS = 16

# At these, the embeddings and the output lose too much; llama.cpp's quantiser keeps them larger as well.
_ENDS = ("token_embd.weight", "output.weight")
_SMALL = 8.0
# Matrices that llama.cpp wants in float32, by a part of their name: routers and state-space parameters.
_KEPT = ("_norm", "ffn_gate_inp", "ssm_", "time_mix", "channel_mix", "rope_freqs", "position_embd", "token_types")


def use_one_blas_thread() -> None:
    """Keep numpy's matrix library from starting threads of its own, for a program that hasn't imported numpy yet.

    The pieces are computed in threads already. More of them wait for each other in a loop, which on a busy machine
    costs thirty times what is computed.
    """
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(name, "1")


class MergedTensors:
    """What each tensor of the base becomes. A context manager: it holds the base file and threads.

    Attributes:
        specs: the tensors to be written, in the base's order.
        changed: names of those whose bytes aren't the base's.
    """

    def __init__(
        self, base: GgufInfo, lora: Lora | None, *, outtype: TensorType | None = None, scale: float = 1.0
    ) -> None:
        """Plan the merge; nothing is read yet but the LoRA's factors.

        Args:
            base: the base model.
            lora: what to merge, fitting the base (`check_shapes`); None: nothing.
            outtype: type of all matrices; None: the base's types.
            scale: factor on all low-rank changes. Whole tensors that the LoRA brings are taken as they are.

        Raises:
            UnsupportedType: a type that would have to be read or written can't be here.
            BadLora: weights that are NaN or infinite.
        """
        self._base = base
        self._scale = scale
        self._outtype = outtype
        self._deltas: Mapping[str, Delta] = lora.deltas if lora is not None and scale else {}
        self._replacements: Mapping[str, Replacement] = lora.replacements if lora is not None else {}
        self._lora_path = lora.path if lora is not None else Path(base.path)
        self._tensors = {tensor.name: tensor for tensor in base.tensors}
        self.specs = tuple(TensorSpec(t.name, t.shape, self._type(t)) for t in base.tensors)
        self._specs = {spec.name: spec for spec in self.specs}
        self.changed = frozenset(
            t.name
            for t in base.tensors
            if t.name in self._deltas or t.name in self._replacements or self._specs[t.name].type != t.type
        )
        self._check_types()
        self._threads = min(os.cpu_count() or 1, _THREADS)
        self._pool = ThreadPoolExecutor(self._threads, "merge")
        self._file: BinaryIO = Path(base.path).open("rb")  # noqa: SIM115  (closed by `close`)
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (base.stamp.size, base.stamp.mtime_ns):
            self.close()
            raise ChangedFile(base.path, "changed while it was being read")

    def chunks(self, name: str) -> Iterator[Bytes]:
        """The bytes of a tensor, in order.

        Raises:
            BadLora: its weights are NaN or infinite, or the sum of both is.
            ChangedFile: the base became shorter.
        """
        tensor = self._tensors[name]
        if name not in self.changed:
            return self._copy(tensor)
        if name in self._replacements:
            return self._replaced(tensor, self._replacements[name])
        return self._merged(tensor, self._deltas.get(name))

    def values(self, name: str) -> Floats:
        """A whole tensor as it will be read from what is written, float32 [rows, columns]."""
        kind = self._specs[name].type
        raw = b"".join(bytes(chunk) for chunk in self.chunks(name))
        return dequantise(raw, kind, self._tensors[name].shape[0])

    def close(self) -> None:
        """Let go of the file and the threads."""
        self._pool.shutdown(cancel_futures=True)
        self._file.close()

    def __enter__(self) -> MergedTensors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _type(self, tensor: TensorInfo) -> TensorType:
        wanted = self._outtype
        if wanted is None or len(tensor.shape) < 2 or any(part in tensor.name for part in _KEPT):
            return tensor.type
        if tensor.shape[0] % wanted.block:
            return tensor.type
        if tensor.name in _ENDS and wanted.bits_per_weight < _SMALL:
            return tensor.type
        return wanted

    def _check_types(self) -> None:
        for tensor in self._base.tensors:
            if tensor.name not in self.changed:
                continue
            found, wanted = tensor.type, self._specs[tensor.name].type
            if tensor.name not in self._replacements and not can_read(found):
                raise UnsupportedType(
                    self._base.path, f"tensor '{printable(tensor.name)}' is {found.name}, which can't be read here"
                )
            if not can_write(wanted):
                raise UnsupportedType(
                    self._base.path,
                    f"tensor '{printable(tensor.name)}' would have to be written as {wanted.name}; "
                    f"this machine can write {', '.join(writable_types())}",
                    remedy="choose an --outtype among them; K-quants need the package llama-cpp-python",
                )

    def _read(self, offset: int, nbytes: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(nbytes)
        if len(data) != nbytes:
            raise ChangedFile(self._base.path, "became shorter while it was being read", offset=offset)
        return data

    def _copy(self, tensor: TensorInfo) -> Iterator[Bytes]:
        for start in range(0, tensor.nbytes, _COPY):
            yield self._read(tensor.offset + start, min(_COPY, tensor.nbytes - start))

    def _replaced(self, tensor: TensorInfo, one: Replacement) -> Iterator[Bytes]:
        kind = self._specs[tensor.name].type
        values = one.values().reshape(-1, tensor.shape[0])
        step = max(1, _ELEMENTS // tensor.shape[0])
        for start in range(0, len(values), step):
            yield self._written(tensor.name, values[start : start + step], kind)

    def _merged(self, tensor: TensorInfo, delta: Delta | None) -> Iterator[Bytes]:
        """Pieces of whole rows, computed ahead by as many as there are threads, given in order."""
        import numpy as np

        columns = tensor.shape[0]
        rows = tensor.elements // columns
        row_bytes = tensor.nbytes // rows
        step = max(1, _ELEMENTS // columns)
        left = right = None
        if delta is not None:
            with np.errstate(over="ignore"):
                left, right = delta.left(), delta.right() * (delta.scale * self._scale)
        kind = self._specs[tensor.name].type

        def work(raw: bytes, start: int) -> Bytes:
            values = dequantise(raw, tensor.type, columns)
            if left is not None and right is not None:
                with np.errstate(over="ignore", invalid="ignore"):  # `_written` says so
                    values += left[start : start + len(values)] @ right
            try:
                return self._written(tensor.name, values, kind)
            except BadLora:
                self._check_base(tensor, dequantise(raw, tensor.type, columns))
                raise

        waiting: deque[Future[Bytes]] = deque()
        for start in range(0, rows, step):
            raw = self._read(tensor.offset + start * row_bytes, min(step, rows - start) * row_bytes)
            waiting.append(self._pool.submit(work, raw, start))
            del raw
            if len(waiting) > self._threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _check_base(self, tensor: TensorInfo, values: Floats) -> None:
        """Say so where the LoRA isn't to blame."""
        import numpy as np

        if not np.isfinite(values).all():
            raise BadSource(
                self._base.path,
                f"tensor '{printable(tensor.name)}' holds NaN or infinite numbers",
                remedy="fetch or make the base again",
            )

    def _written(self, name: str, values: Floats, kind: TensorType) -> Bytes:
        import numpy as np

        limit = 65504.0 if kind.name == "F16" else float(np.finfo(np.float32).max)
        # One pass for NaN, infinity and what float16 can't hold.
        if values.size and not max(-float(values.min()), float(values.max())) <= limit:
            if name in self._deltas or name in self._replacements:
                raise BadLora(
                    self._lora_path, f"tensor '{printable(name)}' gets numbers that {kind.name} can't hold when merged"
                )
            raise BadSource(self._base.path, f"tensor '{printable(name)}' holds numbers that {kind.name} can't hold")
        return quantise(values, kind)
