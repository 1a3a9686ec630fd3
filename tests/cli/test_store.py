"""Session files: durable, locked, atomic, tolerant of a crash."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltm_edge import store as store_module
from ltm_edge.errors import SessionBusy, SessionError
from ltm_edge.store import SessionStore, check_name
from ltm_edge.turn import Turn


def turn(n: int, **more: object) -> Turn:
    values: dict[str, object] = {
        "request": f"request {n}",
        "document": f"scene:\n  response: |\n    answer {n}\n",
        "reply_text": f"answer {n}",
        "template": "initiation",
        "lang": "en",
        "trace": {"version": 1, "ms_total": 1.5},
    }
    return Turn(**(values | more))  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "sessions")


def test_nothing_is_written_before_the_first_turn(store: SessionStore) -> None:
    with store.open("a") as file:
        assert file.load() == []
        assert not file.path.exists()
    assert store.latest() is None


def test_turns_come_back_as_they_were(store: SessionStore) -> None:
    turns = [turn(1), turn(2, request="Привет\nмир 🌍", partial=True), turn(3, request="\x00\u202e\u2028\ud800")]
    with store.open("a") as file:
        for one in turns:
            file.append(one)
        assert file.load() == turns
    with store.open("a") as file:
        assert file.load() == turns
    assert store.read("a") == turns
    lines = (store.folder / "a.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[0])["version"] == 1
    assert "Привет" in lines[2]
    assert len(lines) == 5 and lines[-1] == ""


@given(st.text(st.characters(), max_size=40), st.text(max_size=40))
def test_any_text_survives_one_line(request: str, answer: str) -> None:
    one = turn(1, request=request, reply_text=answer)
    line = one.to_json()
    assert "\n" not in line
    assert Turn.from_json(line.encode("utf-8")) == one


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ("{}", "request: missing"),
        (turn(1).to_json().replace('"en"', "7"), "lang: expected str, found int"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_a_line_that_is_no_turn_is_refused(line: str, word: str) -> None:
    with pytest.raises(SessionError, match=word):
        Turn.from_json(line)


def test_files_are_for_their_user_only(store: SessionStore) -> None:
    if sys.platform == "win32":
        pytest.skip("permission bits")
    with store.open("a") as file:
        file.append(turn(1))
        assert stat.S_IMODE(file.path.stat().st_mode) & 0o077 == 0
        file.rewrite([turn(2)])
        assert stat.S_IMODE(file.path.stat().st_mode) & 0o077 == 0


def test_rewrite_replaces_all_turns_and_leaves_no_temporary_file(store: SessionStore) -> None:
    with store.open("a") as file:
        file.append(turn(1))
        file.append(turn(2))
        file.rewrite([turn(1)])
        file.append(turn(3))
    assert [t.request for t in store.read("a")] == ["request 1", "request 3"]
    assert sorted(p.name for p in store.folder.iterdir()) == ["a.jsonl", "locks"]


def test_a_crash_while_rewriting_keeps_the_old_turns(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: object, target: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with store.open("a") as file:
        file.append(turn(1))
        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(SessionError, match="Input/output error"):
            file.rewrite([])
    assert store.read("a") == [turn(1, created=store.read("a")[0].created)]
    assert sorted(p.name for p in store.folder.iterdir()) == ["a.jsonl", "locks"]


@pytest.mark.parametrize("torn", [b'{"request":"x', b"\x00\x00\x00", "Привет".encode()[:-1]])
def test_a_torn_last_line_is_kept_aside(store: SessionStore, torn: bytes) -> None:
    with store.open("a") as file:
        file.append(turn(1))
        file.append(turn(2))
    with (store.folder / "a.jsonl").open("ab") as stream:
        stream.write(torn)
    before = (store.folder / "a.jsonl").read_bytes()
    assert len(store.read("a")) == 2
    assert (store.folder / "a.jsonl").read_bytes() == before, "reading repairs nothing"
    with store.open("a") as file:
        assert [t.request for t in file.load()] == ["request 1", "request 2"]
        assert len(file.notices) == 1 and "\n" not in file.notices[0]
        file.append(turn(3))
    (aside,) = store.folder.glob("a.damaged-*")
    assert aside.read_bytes() == torn + b"\n"
    with store.open("a") as file:
        assert len(file.load()) == 3
        assert file.notices == []


def test_a_whole_last_line_without_its_line_feed_counts(store: SessionStore) -> None:
    with store.open("a") as file:
        file.append(turn(1))
        file.append(turn(2))
    path = store.folder / "a.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    with store.open("a") as file:
        assert file.notices == []
        file.append(turn(3))
    assert [t.request for t in store.read("a")] == ["request 1", "request 2", "request 3"]


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b'{"format":"ltm-edge-session","version":2}', "newer ltm-edge"),
        (b'{"format":"ltm-edge-session","version":"1"}', "expected a whole number"),
        (b"hello", "not a session"),
        (b"", "not a session"),
        (b'{"format":"other","version":1}', "not a session"),
    ],
)
def test_a_file_that_is_no_session_of_this_version_is_left_alone(store: SessionStore, head: bytes, word: str) -> None:
    store.folder.mkdir(parents=True)
    path = store.folder / "a.jsonl"
    path.write_bytes(head + b"\n")
    for use in (store.open, store.read):
        with pytest.raises(SessionError, match=word) as caught:
            use("a")
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == head + b"\n"
    path.unlink()
    store.open("a").close()  # the lock was not left behind


def test_a_huge_file_is_refused(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.open("a") as file:
        file.append(turn(1))
    monkeypatch.setattr(store_module, "MAX_BYTES", 10)
    with pytest.raises(SessionError, match="at most 10"):
        store.read("a")


@pytest.mark.parametrize("name", ["a", "Разговор 1", "2026-11-22_13-40-11", "x.y", "a" * 64])
def test_good_names(name: str, store: SessionStore) -> None:
    with store.open(name) as file:
        file.append(turn(1))
    assert store.names() == [check_name(name)]


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", ".hidden", "a\x00", "a\nb", "-rf", "C:x", "~x"),
        *("con", "NUL.txt", "LPT1", "a" * 65, "a.", "я" * 100),
    ],
)
def test_bad_names(name: str, store: SessionStore) -> None:
    for use in (store.open, store.read, store.exists):
        with pytest.raises(SessionError, match="session name"):
            use(name)
    assert not store.folder.exists()


def test_names_that_differ_by_spelling_only_are_one_session(store: SessionStore) -> None:
    with store.open("Cafe\u0301") as file:
        file.append(turn(1))
    assert store.exists("Café")


def test_a_second_opener_is_told_who_and_what(store: SessionStore) -> None:
    with store.open("a") as file:
        file.append(turn(1))
        with pytest.raises(SessionBusy, match=r"session 'a' is in use.*--session"):
            store.open("a")
        with pytest.raises(SessionBusy):
            store.open("A")
        assert len(store.read("a")) == 1
    store.open("a").close()


def test_the_lock_holds_between_processes_and_dies_with_its_owner(store: SessionStore) -> None:
    program = (
        "import sys; from ltm_edge.store import SessionStore; f = SessionStore(sys.argv[1]).open('a');"
        "print('open', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(store.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(SessionBusy):
            store.open("a")
    finally:
        other.kill()
        other.wait()
        other.communicate()
    store.open("a").close()


def test_new_sessions_never_share_a_name(store: SessionStore) -> None:
    files = [store.create() for _ in range(4)]
    assert len({file.name for file in files}) == 4
    for file in files:
        file.close()


def test_latest_is_the_one_written_last(store: SessionStore) -> None:
    for n, name in enumerate(["b", "a", "c"]):
        with store.open(name) as file:
            file.append(turn(n))
        os.utime(store.folder / f"{name}.jsonl", (n, n))
    assert store.names() == ["c", "a", "b"]
    with store.open("a") as file:
        file.append(turn(9))
    assert store.latest() == "a"


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SessionError, match=r"can't be saved in .*file") as caught:
        SessionStore(tmp_path / "file" / "sessions").open("a")
    assert not isinstance(caught.value, SessionBusy)
    assert "\n" not in str(caught.value)


def test_a_read_only_folder_is_not_called_busy(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.open("a") as file:
        file.append(turn(1))
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # root may write anywhere, so ask the check itself
        monkeypatch.setattr(os, "access", lambda *_: False)
    (store.folder / "locks").chmod(0o500)
    try:
        with pytest.raises(SessionError, match="Permission denied") as caught:
            store.open("a")
    finally:
        (store.folder / "locks").chmod(0o700)
    assert not isinstance(caught.value, SessionBusy)
    assert len(store.read("a")) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_turn_that_finds_the_disk_full_is_held_and_written_later(store: SessionStore) -> None:
    with store.open("a") as file:
        file.append(turn(1))
        saved = file.path.read_bytes()
        file.path.unlink()
        file.path.symlink_to("/dev/full")
        for n in (2, 3):
            with pytest.raises(SessionError, match="No space left on device"):
                file.append(turn(n))
        file.path.unlink()
        file.path.write_bytes(saved)  # space again
        file.append(turn(4))
        assert [t.request for t in store.read("a")] == [f"request {n}" for n in (1, 2, 3, 4)]


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits")
def test_a_full_disk_leaves_no_torn_line(store: SessionStore) -> None:
    program = """
import resource, sys
from ltm_edge.errors import SessionError
from ltm_edge.store import SessionStore
from tests.cli.test_store import turn
with SessionStore(sys.argv[1]).open("a") as file:
    file.append(turn(1))
    size = file.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))
    try:
        file.append(turn(2))
    except SessionError as error:
        print(error)
"""
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", program, str(store.folder)], capture_output=True, text=True, cwd=root, check=True
    )
    assert "can't be saved" in result.stdout and result.stdout.count("\n") == 1
    with store.open("a") as file:
        assert file.notices == []
        assert [t.request for t in file.load()] == ["request 1"]


def test_a_file_that_vanished_is_written_whole_again(store: SessionStore) -> None:
    with store.open("a") as file:
        file.append(turn(1))
        file.path.unlink()
        file.append(turn(2))
    assert len(store.read("a")) == 2


def test_the_system_prompt_stays_with_the_session(store: SessionStore) -> None:
    with store.open("a") as file:
        file.set_system("Be brief.")
        assert not file.path.exists()
        file.append(turn(1))
    with store.open("a") as file:
        assert file.system == "Be brief."
        file.set_system(None)
    with store.open("a") as file:
        assert file.system is None
        assert len(file.load()) == 1
