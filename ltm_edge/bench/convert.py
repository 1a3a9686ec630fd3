"""Speed and peak memory of merging a LoRA, ours and llama.cpp's `llama-export-lora`'s; what opening the bundle adds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_tools.bundle_converter import BundleConverter
from gguf_tools.entries import Entry, entries_of, number_entry, text_entry
from gguf_tools.files import writing
from gguf_tools.lora_gguf import Factors, write_gguf_lora
from gguf_tools.quants import quantise
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufInfo
from gguf_tools.types import TENSOR_TYPES, ValueType
from gguf_tools.writer import GgufWriter, TensorSpec
from ltm_edge.bench.opening import Opening, bench_opening
from ltm_edge.bench.report import Columns, Report, table, this_machine
from ltm_edge.bench.table import number
from ltm_edge.overlay_set import packaged_documents

__all__ = ["ConvertReport", "bench_convert"]

_RANK = 16
_WIDTH, _INNER, _VOCABULARY = 4096, 11008, 32000  # of the 7B models
_LARGEST = {"F32": TENSOR_TYPES[0], "Q8_0": TENSOR_TYPES[8]}

# Runs one program and tells its peak memory; the parent's would be mixed with everything else it did.
_CHILD = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
seconds = time.perf_counter() - start
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
said = (done.stderr or done.stdout)[-300:]
cpu = usage.ru_utime + usage.ru_stime
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "rc": done.returncode, "said": said}))
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One program on one file.

    Attributes:
        file: what was converted.
        program: which one did it.
        note: why there are no figures.
        nbytes: bytes of the base.
        seconds: the best of all rounds, checks included.
        cpu: seconds of processor time in that round, which other programs' load changes little; None on Windows.
        peak: bytes of memory at most; None on Windows.
        bound: bytes that a conversion may take: three times the largest tensor in float32, and 200 MB.
    """

    file: str
    program: str
    note: str = ""
    nbytes: int = 0
    seconds: float | None = None
    cpu: float | None = None
    peak: int | None = None
    bound: int | None = None


@dataclass(frozen=True, slots=True)
class ConvertReport(Report):
    """The machine, all rows, and what opening a bundle of the model adds."""

    machine: dict[str, Any]
    rows: tuple[Row, ...]
    opening: Opening

    def lines(self) -> list[str]:
        """The report for people."""
        machine = ", ".join(f"{key} {value}" for key, value in self.machine.items())
        return [table(_COLUMNS, self.rows), "", self.opening.line(), "", machine]


_COLUMNS: Columns[Row] = {
    "base": lambda row: row.file,
    "program": lambda row: row.program,
    "s": lambda row: number(row.seconds),
    "CPU s": lambda row: number(row.cpu),
    "MB/s": lambda row: number(None if row.seconds is None else row.nbytes / 1e6 / row.seconds),
    "peak MB": lambda row: number(None if row.peak is None else row.peak / 1e6),
    "bound MB": lambda row: number(None if row.bound is None else row.bound / 1e6),
    "": lambda row: row.note,
}


def bench_convert(base: Path, layers: int, rounds: int, progress: Callable[[str], None]) -> ConvertReport:
    """Merge a random LoRA of rank 16 on every linear layer.

    Args:
        base: the model.
        layers: layers of a second, made-up Q8_0 model with the shapes of a 7B one (32 would be all); 0: none.
        rounds: how often; the best counts.
        progress: told what is being done.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ltm-bench-convert-") as name:
        scratch = Path(name)
        rows += _both(base.name, base, scratch, rounds, progress)
        progress("opening a bundle")
        opening = bench_opening(_bundle(scratch, base), rounds)
        if layers:
            progress(f"making a Q8_0 file of {layers} layers in the shapes of a 7B model")
            made = _synthetic(scratch / "synthetic.gguf", layers)
            rows += _both(f"7B-shaped, {layers} layers", made, scratch, rounds, progress)
    return ConvertReport(this_machine(), tuple(rows), opening)


def _bundle(scratch: Path, base: Path) -> Path:
    """A bundle with every document that there is and a channel's adapter in its sidecar folder."""
    folder, out = scratch / "documents", scratch / "documents.gguf"
    documents = packaged_documents()
    field = documents["field_architecture.yaml"]
    gated = re.sub(r"(?m)^( +)kind: channel$", r"\g<0>\n\g<1>head_gates: {0: {0: 1.5}}", field, count=1)
    for name, text in {**documents, "field_architecture.yaml": gated}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    BundleConverter(folder, base, out).run()
    return out


def _both(label: str, base: Path, scratch: Path, rounds: int, progress: Callable[[str], None]) -> list[Row]:
    info = read_gguf(base)
    folder = scratch / f"folder-{base.stem}"
    folder.mkdir()
    (folder / "ltm_overlay_config.yaml").write_text("ltm_overlay: {version: 1, name: bench}\n", "utf-8")
    lora = folder / "model_lora.gguf"
    _random_lora(lora, info)
    out = scratch / "out.gguf"
    ours = [sys.executable, "-m", "gguf_tools", "convert", str(folder), "--base", str(base), "-o", str(out), "--force"]
    rows = [_measured(label, "ltm-edge convert", ours, info, rounds, progress)]
    # llama.cpp's tool writes what it merges as float16, whatever the base is.
    rows.append(_measured(label, "ltm-edge convert, F16", [*ours, "--outtype", "F16"], info, rounds, progress))
    theirs = shutil.which("llama-export-lora")
    if theirs is None:
        rows.append(Row(label, "llama-export-lora", "not on the PATH"))
    else:
        command = [theirs, "-m", str(base), "--lora", str(lora), "-o", str(out)]
        rows.append(_measured(label, "llama-export-lora", command, info, rounds, progress))
    out.unlink(missing_ok=True)
    return rows


def _measured(
    label: str, program: str, command: list[str], info: GgufInfo, rounds: int, progress: Callable[[str], None]
) -> Row:
    largest = max(tensor.elements for tensor in info.tensors) * 4
    best: dict[str, Any] = {}
    for turn in range(rounds):
        progress(f"{label}: {program}, {turn + 1} of {rounds}")
        found = _run(command)
        if found["rc"] != 0:
            return Row(label, program, f"failed: {' '.join(str(found['said']).split())[-100:]}", info.file_size)
        if not best or found["seconds"] < best["seconds"]:
            best = found
    bound = 3 * largest + 200_000_000
    return Row(label, program, "", info.file_size, best["seconds"], best["cpu"], best["peak"], bound)


def _run(command: list[str]) -> dict[str, Any]:
    if sys.platform == "win32":
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "cpu": None, "peak": None, "rc": done.returncode, "said": done.stderr}
    child = subprocess.run([sys.executable, "-c", _CHILD, *command], capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(child.stdout)
    return result


def _random_lora(path: Path, info: GgufInfo) -> None:
    import numpy as np

    dice = np.random.default_rng(0)
    factors = {}
    for tensor in info.tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2 and "norm" not in tensor.name:
            columns, rows = tensor.shape
            left = dice.standard_normal((rows, _RANK), np.float32) * np.float32(0.01)
            right = dice.standard_normal((_RANK, columns), np.float32) / np.float32(columns**0.5)
            factors[tensor.name] = Factors(left, right)
    write_gguf_lora(path, info.architecture, factors)


def _synthetic(path: Path, layers: int) -> Path:
    """A file that looks like a chat model; its rows repeat, since random ones would take longer than the bench."""
    import numpy as np

    wide, inner = (_WIDTH, _WIDTH), (_WIDTH, _INNER)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (_WIDTH, _VOCABULARY)}
    for layer in range(layers):
        at = f"blk.{layer}."
        shapes |= {f"{at}attn_{part}.weight": wide for part in ("q", "k", "v", "output")}
        shapes |= {f"{at}ffn_{part}.weight": inner for part in ("gate", "up")}
        shapes |= {f"{at}ffn_down.weight": (_INNER, _WIDTH), f"{at}attn_norm.weight": (_WIDTH,)}
    specs = [TensorSpec(n, s, _LARGEST["Q8_0" if len(s) > 1 else "F32"]) for n, s in shapes.items()]
    dice = np.random.default_rng(1)
    row = {n: bytes(quantise(dice.standard_normal((64, n), np.float32), _LARGEST["Q8_0"])) for n in (_WIDTH, _INNER)}
    with writing(path) as stream:
        writer = GgufWriter(stream)
        writer.begin(_entries(path, layers), specs)
        for spec in specs:
            if len(spec.shape) == 1:
                writer.tensor(spec.name, [np.ones(spec.shape, "<f4").tobytes()])
            else:
                writer.tensor(spec.name, [row[spec.shape[0]]] * (spec.shape[1] // 64))
        writer.end()
    return path


def _entries(path: Path, layers: int) -> list[Entry]:
    """The least that makes a file a llama model: its metadata, and a vocabulary of a few words."""
    import gguf

    small = path.with_name("vocabulary.gguf")
    writer = gguf.GGUFWriter(small, "llama")
    writer.add_block_count(layers)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(32)
    writer.add_head_count_kv(32)
    writer.add_context_length(4096)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    found = entries_of(read_gguf(small))
    small.unlink()
    return [*found, text_entry("general.name", "synthetic"), number_entry("general.file_type", ValueType.UINT32, 7)]
