"""Index files with a graph: shrinking, damage by chance, damage by intent."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ltm_edge.errors import IndexStale, InputError, MemoryStoreError
from ltm_edge.memory.index import VectorIndex
from ltm_edge.native import core

from .checksum import xxh64

DIM, COUNT = 8, 160
HEADER = 328
ORIGIN = {"dim": DIM, "generation": 3, "embedder": "e"}


def made(count: int = COUNT) -> VectorIndex:
    index = VectorIndex(DIM, exact_below=0)
    index.add(range(count), np.random.default_rng(0).normal(size=(count, DIM)).astype(np.float32))
    return index


def opened(path: Path) -> VectorIndex:
    return VectorIndex.load(path, **ORIGIN, exact_below=0)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "index"
    made().save(path, generation=3, embedder="e")
    return path


def forged(data: bytearray) -> bytes:
    """The same with right checksums."""
    data[HEADER - 8 : HEADER] = struct.pack("<Q", xxh64(bytes(data[: HEADER - 8])))
    data[-8:] = struct.pack("<Q", xxh64(bytes(data[HEADER:-8])))
    return bytes(data)


def sections(data: bytes) -> dict[str, range]:
    """Where the parts of the file stand."""
    count, _, nodes, upper = struct.unpack_from("<4Q", data, 16)
    found, at = {}, HEADER
    for name, size in (
        ("ids", 8 * count),
        ("vectors", 4 * DIM * count),
        ("places", 4 * nodes),
        ("levels", nodes),
        ("base", 4 * 33 * nodes),
        ("upper", 4 * 17 * upper),
    ):
        found[name] = range(at, at + size)
        at += size
    assert at + 8 == len(data)
    return found


def test_a_graph_comes_back_link_for_link(path: Path, tmp_path: Path):
    again = opened(path)
    assert again.stats.linked == COUNT
    again.save(tmp_path / "again", generation=3, embedder="e")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert xxh64(path.read_bytes()[HEADER:-8]) == struct.unpack("<Q", path.read_bytes()[-8:])[0]


def test_the_file_shrinks_without_being_asked(path: Path):
    before, index = path.stat().st_size, opened(path)
    index.remove(range(0, COUNT, 2))
    index.save(path, generation=4, embedder="e")
    assert path.stat().st_size < 0.6 * before
    assert len(VectorIndex.load(path, dim=DIM, generation=4, embedder="e", exact_below=0)) == COUNT // 2


def test_chance_damage_is_always_noticed(path: Path):
    whole, random = path.read_bytes(), np.random.default_rng(1)
    places = [*range(HEADER), *random.integers(HEADER, len(whole), 300).tolist(), len(whole) - 1]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(random.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(IndexStale):
            opened(path)
    for size in [*range(HEADER + 20), *random.integers(0, len(whole), 100).tolist(), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(IndexStale):
            opened(path)
    path.write_bytes(whole + bytes(8))
    with pytest.raises(IndexStale):
        opened(path)


def test_a_folder_in_its_place_is_stale(tmp_path: Path):
    with pytest.raises(IndexStale):
        opened(tmp_path)


def harmful(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """One lie each."""
    at = {name: where.start for name, where in sections(whole).items()}
    words = {
        "a row that isn't there": ("places", COUNT),
        "a row of two nodes": ("places", struct.unpack_from("<I", whole, at["places"] + 4)[0]),
        "too many links": ("base", 33),
        "a link to nowhere": ("base + 4", COUNT),
        "a link far out": ("base + 4", 0xFFFFFFFF),
        "a link to itself": ("base + 4", 0),
        "a link to nowhere above": ("upper + 4", COUNT),
        "too many links above": ("upper", 17),
    }
    for what, (place, value) in words.items():
        name, _, more = place.partition(" + ")
        data = bytearray(whole)
        struct.pack_into("<I", data, at[name] + int(more or 0), value)
        yield what, forged(data)
    for what, place, form, value in (
        ("a negative id", at["ids"], "<q", -5),
        ("an id twice", at["ids"], "<q", 1),
        ("a vector of NaN", at["vectors"], "<f", float("nan")),
        ("a long vector", at["vectors"], "<f", 1e30),
        ("a higher level", at["levels"], "<B", 200),
        ("another entry", 52, "<I", COUNT),
        ("more links a node", 48, "<I", 64),
        ("another version", 8, "<I", 2),
        ("a huge count", 16, "<Q", 1 << 61),
        ("huge nodes", 32, "<Q", 1 << 62),
        ("huge upper lists", 40, "<Q", 1 << 60),
        ("a long name", 56, "<I", 4000),
    ):
        data = bytearray(whole)
        struct.pack_into(form, data, place, value)
        yield what, forged(data)


def test_files_made_to_harm_are_refused(path: Path):
    for what, data in harmful(path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(IndexStale):
            opened(path)
            pytest.fail(what)


def test_whatever_opens_can_be_searched(path: Path):
    whole, random = path.read_bytes(), np.random.default_rng(2)
    parts, queries, survived = sections(whole), np.random.default_rng(3).normal(size=(5, DIM)).astype(np.float32), 0
    for _ in range(20):
        for name in ("places", "levels", "base", "upper", "ids"):
            data = bytearray(whole)
            place = int(random.choice(parts[name]))
            data[place] = int(random.integers(256))
            path.write_bytes(forged(data))
            try:
                index = opened(path)
            except IndexStale:
                continue
            survived += 1
            ids, _ = index.search(queries, 10, effort=30)
            assert all(len(set(row)) == 10 for row in ids.tolist())
            index.remove(range(100))
            index.add(range(1000, 1010), queries[:1].repeat(10, axis=0))
            index.compact()
    assert survived  # a link may lead to another node just as well


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_is_an_error():
    with pytest.raises(MemoryStoreError, match="can't be written"):
        core().VectorIndex.save(made()._native, "/dev/full", 1, "e")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are another matter there")
def test_a_failed_save_leaves_the_old_file(path: Path):
    whole = path.read_bytes()
    program = (
        "import resource, signal, sys\n"
        "from ltm_edge.errors import MemoryStoreError\n"
        "from ltm_edge.memory.index import VectorIndex\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "index = VectorIndex.load(sys.argv[1], dim=8, generation=3, embedder='e', exact_below=0)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n"
        "    index.save(sys.argv[1], generation=4, embedder='e')\n"
        "except MemoryStoreError:\n"
        "    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == 7
    assert path.read_bytes() == whole and [p.name for p in path.parent.iterdir()] == ["index"]


def test_numbers_of_a_file_are_checked(path: Path):
    for generation, embedder in ((-1, "e"), (1 << 63, "e"), (1, "e" * 257)):
        with pytest.raises(InputError):
            made(3).save(path, generation=generation, embedder=embedder)
