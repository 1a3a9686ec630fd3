"""Damaged bundles of every kind through the readers: each input is taken or refused with a GgufError, quickly.

    python tests/bundles/fuzz.py --inputs 1000000 [--jobs N] [--seed N]

Mutations know the formats: counts, lengths, types and offsets get values that overflow, JSON gets values of other
kinds, entries are doubled, left out and exchanged. An input that makes anything else happen is written out.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from gguf_tools.bundle_converter import BundleConverter
from gguf_tools.bundle_reader import BundleReader
from gguf_tools.errors import GgufError
from gguf_tools.lora import check_shapes, check_weights
from gguf_tools.read_lora import read_lora
from gguf_tools.reader import read_gguf
from gguf_tools.records import GgufInfo
from gguf_tools.sidecar import check_sidecar, read_manifest
from gguf_tools.summary import summarise
from gguf_tools.yaml_files import load_yaml
from tests.bundles import tiny
from tests.timing import slowness

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-v1" / "golden-v1.gguf"
SLOWEST = 5.0  # seconds of processor time for one input, none of which has a megabyte
ODD = (0, 1, 2, 3, 7, 31, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)


class Inputs:
    """Sound inputs to begin with, and what reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        model = tiny.make("llama", width=32, heads=2, kv_heads=1, size=16, inner=32, layers=1)
        self.base: GgufInfo = read_gguf(tiny.write(model, folder / "base.gguf"))
        tensors = {name: values.astype(np.float16) for name, values in tiny.lora(model, rank=2).items()}
        safetensors = tiny.safetensors(folder / "sound.safetensors", tensors, {"lora_alpha": "4"}).read_bytes()
        lora = tiny.runtime_lora(model, tiny.lora(model, rank=2), folder / "sound-lora.gguf", 4.0).read_bytes()
        manifest = (GOLDEN.with_suffix(".ltm") / "manifest.json").read_bytes()
        overlay = (
            b"ltm_overlay:\n  version: 1\n  name: x\n  memory: {weights: {meaning: 0.5, words: 0.5}}\n  list: [a, b]\n"
        )
        bundle = folder / "sound.gguf"
        BundleConverter(tiny.bundle(folder / "sound"), Path(self.base.path), bundle).run()
        self.kinds: dict[str, tuple[bytes, Callable[[bytes, random.Random], bytes], Callable[[bytes], None]]] = {
            "gguf": (bundle.read_bytes(), binary, self.read_gguf),
            "gguf-lora": (lora, binary, self.read_lora),
            "safetensors": (safetensors, safetensors_damage, self.read_lora),
            "manifest": (manifest, json_damage, self.read_manifest),
            "yaml": (overlay, text_damage, self.read_yaml),
        }

    def read_gguf(self, data: bytes) -> None:
        file = self.folder / "input.gguf"
        file.write_bytes(data)
        info = read_gguf(file)
        for line in summarise(info).lines():
            assert all(part.isprintable() for part in line), line
        BundleReader.open(file)

    def read_lora(self, data: bytes) -> None:
        file = self.folder / "input.lora"
        file.write_bytes(data)
        lora = read_lora(file, self.base)
        check_shapes(lora, self.base)
        check_weights(lora)

    def read_manifest(self, data: bytes) -> None:
        folder = self.folder / "input.ltm"
        folder.mkdir(exist_ok=True)
        (folder / "integration_log.json").write_bytes(b"{}")
        (folder / "manifest.json").write_bytes(data)
        read_manifest(folder)
        for line in check_sidecar(folder):
            assert line.isprintable(), line

    @staticmethod
    def read_yaml(data: bytes) -> None:
        try:
            load_yaml(data)
        except ValueError as error:
            raise GgufError("input.yaml", str(error)) from error


def binary(data: bytes, dice: random.Random) -> bytes:
    """Numbers of 1, 2, 4 or 8 bytes overwritten, parts cut, doubled or moved; mostly in the header."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        at = dice.randrange(min(len(out), 6000)) if dice.random() < 0.9 else dice.randrange(len(out))
        what = dice.random()
        if what < 0.35:
            size = dice.choice((1, 2, 4, 8))
            out[at : at + size] = (dice.choice(ODD) & (256**size - 1)).to_bytes(size, "little")
        elif what < 0.6:
            # Right where a length or a count is: eight bytes before a text.
            found = out.find(dice.choice((b"ltm.", b"blk.", b"general.", b"llama.", b"tokenizer.", b"adapter.")), at)
            if found >= 8:
                out[found - 8 : found] = struct.pack("<Q", dice.choice((*ODD, found)))
        elif what < 0.75:
            out[at] ^= 1 << dice.randrange(8)
        elif what < 0.85:
            end = at + dice.randrange(1, 200)
            out[at:at] = out[at:end]
        elif what < 0.95:
            del out[at : at + dice.randrange(1, 200)]
        else:
            del out[at:]
        if len(out) < 32:
            break
    return bytes(out)


def json_damage(data: bytes, dice: random.Random) -> bytes:
    """Values of another kind at any place, keys renamed, left out or doubled; now and then bytes."""
    if dice.random() < 0.15:
        return text_damage(data, dice)
    root = json.loads(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        root = _change(root, dice, 0)
    return json.dumps(root, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")


def _change(value: Any, dice: random.Random, depth: int) -> Any:
    if depth > 6 or not isinstance(value, (dict, list)) or not value or dice.random() < 0.15:
        return copy.deepcopy(dice.choice(_STRANGE)) if dice.random() < 0.8 else dice.choice(ODD)
    if isinstance(value, list):
        found = list(value)
        at = dice.randrange(len(found))
        how = dice.random()
        if how < 0.15:
            found.insert(at, copy.deepcopy(found[dice.randrange(len(found))]))
        elif how < 0.3:
            del found[at]
        elif how < 0.4:
            dice.shuffle(found)
        else:
            found[at] = _change(found[at], dice, depth + 1)
        return found
    changed = dict(value)
    key = dice.choice(list(changed))
    how = dice.random()
    if how < 0.1:
        del changed[key]
    elif how < 0.25:
        changed[dice.choice(("", "../x", "__metadata__", key.upper(), key + "\u202e", "a" * 2000))] = changed.pop(key)
    else:
        changed[key] = _change(changed[key], dice, depth + 1)
    return changed


_STRANGE: tuple[Any, ...] = (
    None, True, False, -1, 0, 1.5, 1e308, float("inf"), float("nan"), "", "x", "\0", "\ud800", "/etc/passwd", "../../x",
    "a/../b", "CON", "A" * 300, [], {}, [[]], [0, 0], [2**53, 2**53], [-1, 4], {"a": {}}, "F16", "F32", "BF16", "I64",
    "0" * 64, "manifest.json", "memory/META.json",
)  # fmt: skip


def safetensors_damage(data: bytes, dice: random.Random) -> bytes:
    """The header changed as JSON, its length true or not; or the bytes."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + length], data[8 + length :]
    if dice.random() < 0.2:
        return binary(data, dice)
    header = json_damage(header, dice)
    if dice.random() < 0.1:
        body = body[: dice.randrange(len(body))] if dice.random() < 0.5 else body + bytes(dice.randrange(64))
    told = len(header) if dice.random() < 0.9 else dice.choice(ODD)
    return struct.pack("<Q", told) + header + body


def text_damage(data: bytes, dice: random.Random) -> bytes:
    """Bytes and lines of a text changed."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 2, 5))):
        at = dice.randrange(len(out) + 1)
        bit = dice.choice((b"[", b"{", b"]", b": ", b"- ", b"&a ", b"*a", b"!!int ", b"\t", b"\xff", b"\xc2\x85", b'"'))
        if dice.random() < 0.5:
            out[at:at] = bit * dice.choice((1, 1, 1, 40, 400))
        else:
            del out[at : at + dice.randrange(1, 60)]
    return bytes(out)


def run(first: int, count: int, scratch: Path | None = None) -> Counter[str]:
    """Inputs `first` to `first + count`; how often each kind was taken or refused, and each error's code."""
    shared = Path("/dev/shm")
    place = scratch or (shared if shared.is_dir() and os.access(shared, os.W_OK) else None)
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="ltm-fuzz-", dir=place) as folder:
        inputs = Inputs(Path(folder))
        names = list(inputs.kinds)
        for number in range(first, first + count):
            dice = random.Random(number)
            name = names[number % len(names)]
            sound, damage, read = inputs.kinds[name]
            data = damage(sound, dice)
            start = time.process_time()
            try:
                read(data)
                outcomes[f"{name} taken"] += 1
            except GgufError as error:
                assert str(error).isprintable(), (number, str(error))
                outcomes[f"{name} refused"] += 1
                outcomes[f"code {error.code}"] += 1
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"fuzz-{name}-{number}"
                kept.write_bytes(data)
                print(f"input {number} ({name}) is kept as {kept}", file=sys.stderr)
                raise
            taken = time.process_time() - start
            if taken > SLOWEST and taken > SLOWEST * slowness():
                raise AssertionError(f"input {number} ({name}) took {taken:.1f} s")
    return outcomes


def _part(part: tuple[int, int]) -> Counter[str]:
    return run(*part)


def main() -> int:
    """Run many in several processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    step = 5_000
    end = options.seed + options.inputs
    parts = [(at, min(step, end - at)) for at in range(options.seed, end, step)]
    outcomes: Counter[str] = Counter()
    start = time.monotonic()
    with multiprocessing.Pool(options.jobs) as pool:
        done = 0
        for found in pool.imap_unordered(_part, parts):
            outcomes += found
            done += step
            if done % 50_000 == 0:
                print(f"{done} inputs, {time.monotonic() - start:.0f} s", flush=True)
    for name in sorted(outcomes):
        print(f"{outcomes[name]:>9}  {name}")
    print(f"{options.inputs} inputs in {time.monotonic() - start:.0f} s, none of which did anything else")
    return 0


if __name__ == "__main__":
    sys.exit(main())
