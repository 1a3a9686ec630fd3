"""Saved KV: round trips on the real demo model, every kind of damage, keys."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from dataclasses import replace

import numpy as np
import pytest

from ltm_edge.engine.decoder import Decoder
from ltm_edge.engine.state_files import StateFiles, StateKey, file_identity

from .state_helpers import BASE, KEY, Holder, states

pytestmark = pytest.mark.usefixtures("default_cap")
LEAD = struct.Struct("<8sI16s")
TEXT = "Two feelings pull against each other here, and neither of them wants to be the first one to give way today."


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
