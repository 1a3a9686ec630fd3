"""Saved KV: round trips on the real demo model, every kind of damage, eviction, several processes, kill -9."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import random
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ltm_edge.engine.decoder import Decoder
from ltm_edge.engine.state_files import DEFAULT_BYTES, StateFiles, StateKey, file_identity
from ltm_edge.errors import InputError

LEAD = struct.Struct("<8sI16s")
KEY = StateKey(model="0" * 32, kv_type="f16", adapters="", library="llama.cpp 1")
BASE = np.arange(1000, dtype=np.int32)
TEXT = "Two feelings pull against each other here, and neither of them wants to be the first one to give way today."
SOAK = int(os.environ.get("LTM_SOAK", "0"))
KILLS = max(100, SOAK) if SOAK else 8


class Holder:
    """Holds KV that follows from its tokens, so that any mixture of two files shows. For many files, or large ones."""

    def __init__(self, size: int = 1000, *, n_ctx: int = 4096, can_shift: bool = True) -> None:
        self.size, self.n_ctx, self.can_shift = size, n_ctx, can_shift
        self.asked = 0
        self.given: list[int] = []
        self.right = True

    def kv(self, tokens):
        seed = int.from_bytes(hashlib.blake2b(tokens.tobytes(), digest_size=8).digest(), "big")
        return np.frombuffer(np.random.default_rng(seed).bytes(self.size), dtype=np.uint8)

    def save_state(self, tokens):
        self.asked += 1
        return self.kv(tokens), len(tokens)

    def restore_state(self, tokens, data):
        self.given.append(len(tokens))
        self.right &= np.array_equal(self.kv(tokens), data)
        return True


def states(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.kv"))


def temporaries(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.tmp"))


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture(scope="module", autouse=True)
def default_cap() -> Iterator[None]:
    """The cap is the default one, here and in the child processes, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LTM_EDGE_STATE_MB", raising=False)
        yield


@pytest.fixture
def files(tmp_path: Path) -> StateFiles:
    return StateFiles(tmp_path / "state")


@pytest.fixture
def warned() -> Iterator[list[logging.LogRecord]]:
    """What was logged during the test."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("ltm_edge.engine.state_files")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


# The real model


@pytest.fixture(scope="module")
def writer(demo_model) -> Decoder:
    return Decoder(demo_model)


@pytest.fixture(scope="module")
def reader(demo_model) -> Decoder:
    return Decoder(demo_model)


@pytest.fixture(scope="module")
def saved(demo_model, writer, tmp_path_factory):
    """(key, tokens, file name, content) of a small file written from the real model."""
    files = StateFiles(tmp_path_factory.mktemp("saved"))
    tokens = demo_model.tokenize(TEXT)
    key = StateKey.of(demo_model)
    writer.commit(tokens)
    assert files.save(key, tokens, writer)
    (path,) = states(files.folder)
    return key, tokens, path.name, path.read_bytes()


@pytest.fixture
def placed(saved, files, reader):
    """Puts a content in place of the saved file and loads it: (tokens restored, whether the file is still there)."""
    key, tokens, name, _ = saved
    files.folder.mkdir()
    path = files.folder / name

    def load(content: bytes) -> tuple[int, bool]:
        path.write_bytes(content)
        reader.clear()
        restored = files.load(key, tokens, reader)
        assert reader.stats["cached"] == (len(tokens) if restored else 0)
        return restored, path.exists()

    return load


@pytest.mark.needs_model
def test_a_restored_prefix_scores_like_the_one_that_was_saved(demo_model, files, warned):
    prefix = demo_model.tokenize(TEXT * 3)
    rest = demo_model.tokenize(" So the answer is")
    answers = [demo_model.tokenize(" yes, it is"), demo_model.tokenize(" no")]
    request = [(np.concatenate([prefix, rest]), answers)]
    key = StateKey.of(demo_model, "lora a.gguf 0.50")
    first = Decoder(demo_model)
    first.commit(prefix)
    assert files.save(key, prefix, first)
    (before,) = first.score(request)

    second = Decoder(demo_model)
    assert files.load(key, request[0][0], second) == len(prefix)
    (after,) = second.score(request)
    assert after.reused == before.reused == len(prefix) and after.prefilled == before.prefilled
    for a, b in zip(after.logprobs, before.logprobs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    assert not warned

    # And what it restored is worth saving: the same file, which stands already.
    (path,) = states(files.folder)
    written = path.stat().st_ino
    assert files.save(key, prefix, second) and states(files.folder) == [path] and path.stat().st_ino == written


@pytest.mark.needs_model
def test_of_a_file_that_shares_a_beginning_the_shared_part_is_reused(demo_model, files):
    old = demo_model.tokenize(TEXT + " Then she said that it was late.")
    new = demo_model.tokenize(TEXT + " In the end he stayed, and the kettle went on singing.")
    shared = int(np.flatnonzero(old[: len(new)] != new[: len(old)])[0])
    first = Decoder(demo_model)
    first.commit(old)
    key = StateKey.of(demo_model).session("evening")
    assert files.save(key, old, first)

    second, cold = Decoder(demo_model), Decoder(demo_model)
    assert files.load(key, new, second) == shared < len(old)
    answers = [demo_model.tokenize(" yes")]
    (warm,), (fresh,) = second.score([(new, answers)]), cold.score([(new, answers)])
    assert (warm.reused, fresh.reused) == (shared, 0)
    np.testing.assert_allclose(warm.logprobs[0], fresh.logprobs[0], rtol=0, atol=0.02)  # other batches, f16 cache


@pytest.mark.needs_model
def test_only_what_is_cached_is_saved(demo_model, files, reader):
    tokens = demo_model.tokenize(TEXT)
    reader.clear()
    key = StateKey.of(demo_model)
    assert not files.save(key, tokens, reader) and not files.folder.exists()
    reader.commit(tokens[:10])
    assert files.save(key, tokens, reader)
    reader.clear()
    assert files.load(key, tokens, reader) == 10 == reader.stats["cached"]


@pytest.mark.needs_model
def test_a_whole_file_loads(saved, placed, warned):
    _, tokens, _, content = saved
    assert placed(content) == (len(tokens), True)
    assert not warned


@pytest.mark.needs_model
def test_a_truncated_or_longer_file_is_a_miss(saved, placed, warned):
    _, tokens, _, content = saved
    header_end = LEAD.size + LEAD.unpack_from(content)[1]
    tokens_end = header_end + 4 * len(tokens)
    chosen = random.Random(1)
    cuts = [0, 1, 7, 8, 11, 12, LEAD.size - 1, LEAD.size, LEAD.size + 1, header_end - 1, header_end, header_end + 2]
    cuts += [tokens_end - 1, tokens_end, tokens_end + 1, len(content) // 2, len(content) - 1]
    cuts += [chosen.randrange(len(content)) for _ in range(12)]
    for number, cut in enumerate(cuts, start=1):
        assert placed(content[:cut]) == (0, False), cut
        assert len(warned) == number
    assert placed(content + b"\0") == (0, False)


@pytest.mark.needs_model
def test_a_flipped_bit_anywhere_is_a_miss(saved, placed, warned):
    _, tokens, _, content = saved
    header_end = LEAD.size + LEAD.unpack_from(content)[1]
    tokens_end = header_end + 4 * len(tokens)
    regions = [(0, 8), (8, 12), (12, LEAD.size), (LEAD.size, header_end), (header_end, tokens_end)]
    regions += [(tokens_end, len(content))]
    chosen = random.Random(2)
    number = 0
    for start, end in regions:
        for place in {start, end - 1, *(chosen.randrange(start, end) for _ in range(6))}:
            number += 1
            damaged = bytearray(content)
            damaged[place] ^= 1 << chosen.randrange(8)
            assert placed(bytes(damaged)) == (0, False), place
            assert len(warned) == number


def forged(content: bytes, **changes: object) -> bytes:
    """The file with other values in its header, and the header's checksum made right."""
    _, length, _ = LEAD.unpack_from(content)
    header = {**json.loads(content[LEAD.size : LEAD.size + length]), **changes}
    return framed(json.dumps(header).encode()) + content[LEAD.size + length :]


def framed(header: bytes) -> bytes:
    return LEAD.pack(b"ltm-kv\r\n", len(header), hashlib.blake2b(header, digest_size=16).digest()) + header


@pytest.mark.needs_model
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "format 2"),
        ({"version": None}, "format None"),
        ({"key": "0" * 32}, "another model"),
        ({"tokens": 0}, "out of range"),
        ({"tokens": -1}, "out of range"),
        ({"tokens": True}, "out of range"),
        ({"tokens": 1 << 40}, "out of range"),
        ({"tokens": "24"}, "out of range"),
        ({"bytes": 1 << 62}, "were written"),
        ({"bytes": 1.5}, "out of range"),
        ({"crc32": None}, "out of range"),
        ({"tokens_blake2b": 5}, "checksum"),
    ],
)
def test_a_header_of_another_kind_is_a_miss(saved, placed, warned, changes, said):
    assert placed(forged(saved[3], **changes)) == (0, False)
    assert len(warned) == 1 and said in warned[0].getMessage() and "removed" in warned[0].getMessage()


@pytest.mark.needs_model
@pytest.mark.parametrize(
    "content",
    [
        b"GGUF" + bytes(4096),
        framed(b"[1]"),
        framed(b"{"),
        framed(b"[" * 60000),
        LEAD.pack(b"ltm-kv\r\n", 0xFFFFFFFF, bytes(16)) + bytes(4096),
    ],
    ids=["gguf", "list", "unfinished", "nested", "huge"],
)
def test_a_foreign_file_is_a_miss(placed, warned, content):
    assert placed(content) == (0, False)
    assert len(warned) == 1


@pytest.mark.needs_model
def test_kv_that_llama_cpp_refuses_is_a_miss(saved, placed, warned, demo_model, writer):
    """Well-formed files whose KV is cut short, or of another number of tokens."""
    import zlib

    _, tokens, _, content = saved
    length = LEAD.unpack_from(content)[1]
    start = LEAD.size + length + 4 * len(tokens)
    half = content[start : start + (len(content) - start) // 2]
    cut = forged(content[:start], bytes=len(half), crc32=zlib.crc32(half)) + half
    assert placed(cut) == (0, False)
    assert any("llama.cpp refuses it" in record.getMessage() for record in warned)

    fewer = tokens[:-3]
    spelled = fewer.astype("<i4").tobytes()
    digest = hashlib.blake2b(spelled, digest_size=16).hexdigest()
    head = forged(content[: LEAD.size + length], tokens=len(fewer), tokens_blake2b=digest)
    assert placed(head + spelled + content[start:]) == (0, False)
    assert placed(content) == (len(tokens), True)


@pytest.mark.needs_model
def test_another_key_is_a_miss_and_leaves_the_file(saved, files, reader, warned):
    key, tokens, name, content = saved
    files.folder.mkdir()
    (files.folder / name).write_bytes(content)
    reader.clear()
    for other in (
        replace(key, model="1" * 32),
        replace(key, kv_type="q8_0"),
        replace(key, adapters="lora x 1.00"),
        replace(key, library="llama.cpp 0"),
        key.session("a"),
    ):
        assert other.digest != key.digest
        assert files.load(other, tokens, reader) == 0
    assert files.load(key, tokens, reader) == len(tokens)
    assert not warned


@pytest.mark.needs_model
def test_the_key_names_what_kv_depends_on(demo_model):
    key = StateKey.of(demo_model)
    assert key.model == file_identity(demo_model.path) and key.kv_type.startswith(demo_model.options.kv_type)
    assert "0.3." in key.library and key.name == "prefix"


# Which file is taken


def test_the_file_with_most_in_common_is_taken(files):
    for n in (100, 200, 300):
        assert files.save(KEY, BASE[:n], Holder())
    for wanted, common, given in [(250, 250, 300), (120, 120, 200), (1000, 300, 300), (60, 60, 100)]:
        holder = Holder()
        assert files.load(KEY, BASE[:wanted], holder) == common
        assert holder.given == [given] and holder.right
    assert files.load(KEY, BASE[:49], Holder()) == 0  # less than half of the shortest
    assert files.load(KEY, BASE[:50], Holder()) == 50
    assert files.load(KEY, BASE[1:], Holder()) == 0
    assert files.load(KEY, BASE[:0], Holder()) == 0


def test_a_damaged_file_gives_way_to_the_next_best(files, warned):
    for n in (200, 300):
        assert files.save(KEY, BASE[:n], Holder())
    best = max(states(files.folder), key=lambda path: path.stat().st_size)
    content = bytearray(best.read_bytes())
    content[-1] ^= 1
    best.write_bytes(content)
    holder = Holder()
    assert files.load(KEY, BASE, holder) == 200 and holder.right
    assert len(warned) == 1 and not best.exists()


def test_more_tokens_than_the_context_holds_stay_for_a_larger_one(files, warned):
    assert files.save(KEY, BASE, Holder())
    assert files.load(KEY, BASE, Holder(n_ctx=999)) == 0
    assert files.load(KEY, BASE, Holder(n_ctx=1000)) == 1000
    assert not warned


def test_kv_that_cannot_be_cut_is_taken_whole_or_not_at_all(files):
    assert files.save(KEY, BASE[:500], Holder())
    assert files.load(KEY, BASE[:499], Holder(can_shift=False)) == 0
    assert files.load(KEY, BASE, Holder(can_shift=False)) == 500


def test_different_keys_never_meet():
    keys = [KEY, KEY.session("a"), KEY.session("b"), KEY.session("prefix")]
    keys += [replace(KEY, adapters="f16"), replace(KEY, kv_type="f1", adapters="6"), replace(KEY, adapters="\ud800\0")]
    assert len({key.digest for key in keys}) == len(keys)


def test_a_model_file_is_told_by_its_size_time_and_edges(tmp_path):
    path = tmp_path / "m.gguf"
    content = bytearray(3 << 20)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    first = file_identity(path)
    assert file_identity(path) == first
    for place in (0, (1 << 20) - 1, 2 << 20, (3 << 20) - 1):
        changed = bytearray(content)
        changed[place] = 1
        path.write_bytes(changed)
        os.utime(path, ns=(10**18, 10**18))
        assert file_identity(path) != first, place
    path.write_bytes(content)
    assert file_identity(path) != first  # another time
    path.write_bytes(content + b"\0")
    os.utime(path, ns=(10**18, 10**18))
    assert file_identity(path) != first
    with pytest.raises(OSError):
        file_identity(tmp_path / "none.gguf")


def test_every_part_of_a_split_model_counts(tmp_path):
    parts = [tmp_path / f"m-{n:05d}-of-00002.gguf" for n in (1, 2)]
    for part in parts:
        part.write_bytes(b"GGUF")
    first = file_identity(parts[0])
    parts[1].write_bytes(b"GGUFx")
    assert file_identity(parts[0]) != first


# The folder


def test_the_files_are_private(files):
    old = os.umask(0o022)
    try:
        assert files.save(KEY, BASE, Holder())
    finally:
        os.umask(old)
    (path,) = states(files.folder)
    if sys.platform != "win32":
        assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "evening" not in path.name


def test_what_was_used_least_recently_goes_first(files):
    kept = [replace(KEY, model=str(n)) for n in range(4)]
    for key in kept:
        assert files.save(key, BASE, Holder(20_000))
    size = states(files.folder)[0].stat().st_size
    for n, key in enumerate(kept):
        (path,) = files.folder.glob(f"{key.digest}-*")
        age(path, 100 - n)
    assert files.load(kept[0], BASE, Holder(20_000)) == 1000  # now the newest
    (path,) = files.folder.glob(f"{kept[1].digest}-*")
    assert files.save(kept[1], BASE, Holder(20_000))  # stands already: counts as used, too

    files.max_bytes = 4 * size + 100
    fifth = replace(KEY, model="5")
    assert files.save(fifth, BASE, Holder(20_000))
    left = [bool(files.load(key, BASE, Holder(20_000))) for key in [*kept, fifth]]
    assert left == [True, True, False, True, True]
    assert sum(path.stat().st_size for path in states(files.folder)) <= files.max_bytes


def test_a_smaller_cap_holds_from_the_next_save_on(files):
    for n in range(3):
        assert files.save(replace(KEY, model=str(n)), BASE, Holder(20_000))
        for path in states(files.folder):
            age(path, 10 * (3 - n))
    files.max_bytes = 30_000
    assert files.save(replace(KEY, model="0"), BASE, Holder(20_000))
    assert len(states(files.folder)) == 1 and files.load(replace(KEY, model="0"), BASE, Holder(20_000)) == 1000


def test_a_few_prefixes_are_kept_and_one_state_of_a_session(files):
    for n in range(6):
        assert files.save(KEY, np.full(50, n, dtype=np.int32), Holder())
        for path in states(files.folder):
            age(path, path.stat().st_size and time.time() - path.stat().st_mtime + 10)
    left = [n for n in range(6) if files.load(KEY, np.full(50, n, dtype=np.int32), Holder())]
    assert left == [2, 3, 4, 5]

    session = KEY.session("evening")
    for n in (100, 200, 150):
        assert files.save(session, BASE[:n], Holder())
        assert len(list(files.folder.glob(f"{session.digest}-*"))) == 1
    assert files.load(session, BASE, Holder()) == 150
    assert len(states(files.folder)) == 5


def test_what_another_process_saved_later_stays_and_the_future_does_not(files, monkeypatch):
    """Two processes that have both written a session, and clear up only then."""
    session = KEY.session("evening")
    clear_up = StateFiles._evict
    with monkeypatch.context() as held:
        held.setattr(StateFiles, "_evict", lambda *_: None)
        for n in (100, 200):
            assert files.save(session, BASE[:n], Holder())
    early, late = (files._path(session, BASE[:n]) for n in (100, 200))
    age(early, 20)
    age(late, 10)
    clear_up(files, session, early)
    assert early.exists() and late.exists()
    clear_up(files, session, late)
    assert not early.exists() and late.exists()
    clear_up(files, session, early)
    assert late.exists()

    age(late, -86400)
    assert files.save(session, BASE, Holder())
    assert states(files.folder) == [files._path(session, BASE)]


def test_what_is_there_is_not_written_again(files):
    holder = Holder()
    assert files.save(KEY, BASE, holder) and files.save(KEY, BASE, holder)
    assert holder.asked == 1


def test_more_than_the_folder_may_hold_is_not_saved(tmp_path, warned):
    files = StateFiles(tmp_path / "state", max_bytes=1000)
    assert not files.save(KEY, BASE, Holder())
    assert len(warned) == 1 and "LTM_EDGE_STATE_MB" in warned[0].getMessage()
    assert not files.folder.exists()


def test_a_cap_of_0_stores_and_reads_nothing(tmp_path, warned, monkeypatch):
    full = StateFiles(tmp_path / "state")
    assert full.save(KEY, BASE, Holder())
    monkeypatch.setenv("LTM_EDGE_STATE_MB", "0")
    off = StateFiles(tmp_path / "state")
    holder = Holder()
    assert not off.save(KEY, BASE[:5], holder) and off.load(KEY, BASE, holder) == 0
    assert holder.asked == 0 and not holder.given and len(states(full.folder)) == 1 and not warned


@pytest.mark.parametrize(("text", "size"), [("", DEFAULT_BYTES), ("  ", DEFAULT_BYTES), ("1", 1 << 20), ("0", 0)])
def test_the_environment_sets_the_cap(monkeypatch, tmp_path, text, size):
    monkeypatch.setenv("LTM_EDGE_STATE_MB", text)
    assert StateFiles(tmp_path).max_bytes == size
    assert StateFiles(tmp_path, max_bytes=5).max_bytes == 5


@pytest.mark.parametrize("text", ["many", "-1", "1.5", "99999999", "1" * 5000, "٣"])
def test_a_cap_that_is_no_number_is_refused(monkeypatch, tmp_path, text):
    monkeypatch.setenv("LTM_EDGE_STATE_MB", text)
    with pytest.raises(InputError, match="LTM_EDGE_STATE_MB"):
        StateFiles(tmp_path)


def test_the_folder_lies_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path))
    assert StateFiles().folder == tmp_path / "cache" / "state"


def test_a_missing_folder_is_a_plain_miss(files, warned):
    assert files.load(KEY, BASE, Holder()) == 0
    assert not warned and not files.folder.exists()


def test_a_file_in_place_of_the_folder_is_one_log_line(tmp_path, warned):
    (tmp_path / "state").write_bytes(b"")
    files = StateFiles(tmp_path / "state")
    assert not files.save(KEY, BASE, Holder()) and len(warned) == 1
    assert files.load(KEY, BASE, Holder()) == 0 and len(warned) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_read_only_folder_still_serves(files, warned):
    assert files.save(KEY, BASE[:500], Holder())
    files.folder.chmod(0o500)
    try:
        if os.access(files.folder, os.W_OK):
            pytest.skip("root writes anywhere")
        assert not files.save(KEY, BASE, Holder()) and len(warned) == 1
        assert files.load(KEY, BASE, Holder()) == 500 and len(warned) == 1
        (path,) = states(files.folder)
        path.write_bytes(b"damaged")
        assert files.load(KEY, BASE, Holder()) == 0 and len(warned) == 2
        assert "can't be removed" in warned[-1].getMessage()
    finally:
        files.folder.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_folder_that_cannot_be_entered_is_one_log_line(files, warned):
    assert files.save(KEY, BASE, Holder())
    files.folder.chmod(0)
    try:
        if os.access(files.folder, os.R_OK):
            pytest.skip("root reads anything")
        assert not files.save(KEY, BASE, Holder()) and len(warned) == 1
        assert files.load(KEY, BASE, Holder()) == 0 and len(warned) == 2
    finally:
        files.folder.chmod(0o700)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writing past ``size`` fails in the middle of a file, as on a full disk (with EFBIG; Python ignores SIGXFSZ)."""
    import resource

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_disk_that_fills_up_leaves_nothing_behind(files, warned):
    assert files.save(KEY, BASE[:500], Holder())
    with file_size_limit(1 << 20):
        assert not files.save(KEY, BASE, Holder(4 << 20))
    assert len(warned) == 1 and os.strerror(errno.EFBIG) in warned[0].getMessage()
    assert len(states(files.folder)) == 1 and not temporaries(files.folder)
    assert files.load(KEY, BASE, Holder()) == 500


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_not_read(files, warned, kind):
    assert files.save(KEY, BASE, Holder())
    (path,) = states(files.folder)
    aside = files.folder / "aside"
    path.rename(aside)
    if kind == "link":
        path.symlink_to(aside)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    holder = Holder()
    assert files.load(KEY, BASE, holder) == 0 and not holder.given
    assert len(warned) == 1 and aside.exists()
    assert path.exists() == (kind == "folder")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="needs root")
def test_a_file_of_another_user_is_not_read(files, warned):
    assert files.save(KEY, BASE, Holder())
    (path,) = states(files.folder)
    path.chmod(0o644)
    os.chown(path, 12345, 12345)
    assert files.load(KEY, BASE, Holder()) == 0
    assert len(warned) == 1 and "12345" in warned[0].getMessage()


def test_what_killed_writers_left_goes_after_an_hour(files):
    assert files.save(KEY, BASE, Holder())
    (path,) = states(files.folder)
    old, future, young = (files.folder / f".{path.name}.{name}.tmp" for name in ("old", "future", "young"))
    foreign = files.folder / "notes.txt"
    for file in (old, future, young, foreign):
        file.write_bytes(b"x")
    age(old, 3700)
    age(future, -86400)
    age(foreign, 10**6)
    assert files.save(KEY, BASE[:10], Holder())
    assert [file.exists() for file in (old, future, young, foreign)] == [False, False, True, True]


# Several processes


KEYS = (KEY, KEY.session("evening"))
SIZE = 4 << 20


def versions(n: int) -> np.ndarray:
    """Tokens that share their first 600 with BASE."""
    return np.concatenate([BASE[:600], np.full(400, n, dtype=np.int32)])


def write_for_ever(folder: str, first: str) -> None:
    """What the child processes do: save one state after the other under two keys."""
    files, holder = StateFiles(Path(folder)), Holder(SIZE)
    n = int(first)
    while True:
        for key in KEYS:
            if not files.save(key, versions(n), holder):
                raise SystemExit("not saved")
        if n == int(first):
            print("ready", flush=True)
        n += 1


@contextmanager
def writing(folder: Path, first: int) -> Iterator[subprocess.Popen[str]]:
    """A child process that has saved each key once and goes on doing so."""
    child = subprocess.Popen(
        [sys.executable, __file__, str(folder), str(first)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline() == "ready\n", child.stderr.read()
        yield child
    finally:
        child.kill()
        child.communicate()


def test_kill_9_in_the_middle_of_writing_never_leaves_a_file_that_loads_wrong(files, warned):
    chosen = random.Random(9)
    torn = 0
    for kill in range(KILLS):
        with writing(files.folder, kill * 10_000) as child:
            limit = time.monotonic() + 60
            while not temporaries(files.folder) and time.monotonic() < limit:
                pass
            if kill % 2:
                time.sleep(chosen.random() * 0.05)
            child.kill()
        assert child.wait() != 1
        left = temporaries(files.folder)
        torn += len(left)
        for path in left:
            age(path, 7200)
        for key in KEYS:
            holder = Holder(SIZE)
            assert files.load(key, BASE, holder) == 600
            assert holder.right and holder.given == [1000]
        assert not warned
    assert torn > 0  # else no kill came in the middle
    assert files.save(KEY, BASE[:10], Holder())
    assert not temporaries(files.folder)
    assert len(states(files.folder)) <= 4 + 2  # one more of the session, where its predecessor could not be removed


def test_two_processes_save_the_same_keys_while_a_third_loads(files, warned):
    """Both write files of the same names: the same tokens, in the same order."""
    loads = 0
    with writing(files.folder, 0), writing(files.folder, 0):
        for _ in range(25):
            for key in KEYS:
                holder = Holder(SIZE)
                loads += files.load(key, BASE, holder) == 600  # a miss where it was evicted in between
                assert holder.right
    assert loads > 0 and not warned
    for key in KEYS:
        holder = Holder(SIZE)
        assert files.load(key, BASE, holder) == 600 and holder.right


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        write_for_ever(*sys.argv[1:])
