"""The folder of saved KV: who may read it, what is evicted, what an odd file system does."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from ltm_edge.engine.state_files import DEFAULT_BYTES, StateFiles
from ltm_edge.errors import InputError

from .state_helpers import BASE, KEY, Holder, age, states, temporaries

pytestmark = pytest.mark.usefixtures("default_cap")


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


def test_a_conversation_can_be_forgotten(files):
    evening, morning = KEY.session("evening"), KEY.session("morning")
    for key in (evening, morning, KEY):
        assert files.save(key, BASE, Holder())
    assert files.forget(evening) == 1 and files.forget(evening) == 0
    assert files.load(evening, BASE, Holder()) == 0
    assert files.load(morning, BASE, Holder()) == files.load(KEY, BASE, Holder()) == len(BASE)


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
