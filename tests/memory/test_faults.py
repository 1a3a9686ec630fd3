"""Power, disks and other processes: an acknowledged turn is there afterwards, and the store is whole."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ltm_edge.errors import MemoryStoreError
from ltm_edge.memory import migrations
from ltm_edge.memory.store import STORE_NAME, SceneStore
from ltm_edge.scene_memory import SceneMemory

from .conftest import Opener, scene
from .counts_oracle import quick_counts, slow_counts
from .hashed import HashedEmbedder

KILLS = int(os.environ.get("LTM_SOAK", "0")) or 12
WORKER = Path(__file__).with_name("worker.py")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_what_was_acknowledged_survives_being_killed(tmp_path: Path, record_property: Callable[[str, object], None]):
    rng = random.Random(5)
    folder = tmp_path / "memory"
    acknowledged: dict[int, str] = {}
    for kill in range(KILLS):
        worker = subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), str(kill)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert worker.stdout is not None and worker.stderr is not None
        first = worker.stdout.readline()
        assert first == b"ready\n", worker.stderr.read().decode()
        said = [worker.stdout.readline()] if kill % 3 == 0 else []  # a slow machine gets to its first scene, too
        time.sleep(rng.random() * 0.4)
        worker.kill()
        out, errors = b"".join([*said, worker.stdout.read()]), worker.stderr.read()
        assert worker.wait() == (1 if sys.platform == "win32" else -signal.SIGKILL), errors.decode()
        for line in out.decode().split("\n")[:-1]:  # the last piece may be cut
            _, number, text = line.split(" ", 2)
            acknowledged[int(number)] = text
        with SceneMemory.open(folder, HashedEmbedder()) as memory:
            assert memory.verify() == []
            missing = [n for n, text in acknowledged.items() if (one := memory.get(n)) is None or one.text != text]
            assert missing == []
            assert quick_counts(memory) == slow_counts(memory)
            uncounted = set(acknowledged) - {entry.scene for entry in memory.log() if entry.what == "accepted"}
            assert uncounted == set()
            memory.fill()
            assert memory.stats().unembedded == 0
            if acknowledged:
                number = rng.choice(list(acknowledged))
                hits = memory.recall(acknowledged[number], 3, chain_depth=0, budget_tokens=0)
                assert acknowledged[number] in [hit.scene.text for hit in hits]
    assert acknowledged
    record_property("kills", KILLS)
    record_property("acknowledged", len(acknowledged))


@needs_fork
def test_a_turn_that_cannot_be_written_leaves_nothing_and_the_next_one_works(opener: Opener):
    import resource

    with opener() as memory:
        memory.add(scene("A."), text="one", session="s")
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            inner = SceneMemory.open(memory.folder, HashedEmbedder())
            inner.add(scene("B."), text="two", session="s")
            size = max(p.stat().st_size for p in memory.folder.iterdir())
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40_000, hard))
            stored, refused = 0, 0
            for i in range(60):
                try:
                    inner.add(scene("word " * 2000), text=f"big {i}", session="s")
                    stored += 1
                except MemoryStoreError:
                    refused += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            after = inner.add(scene("C."), text="three", session="s")
            there = inner.stats().scenes
            good = refused > 0 and there == 3 + stored and inner.get(after.id) is not None and inner.verify() == []
            code = 7 if good else 2
            inner.close()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    with opener() as memory:
        assert memory.verify() == [] and memory.recall("three", 1)[0].scene.text == "three"


def test_a_full_disk_is_said_and_harms_nothing(opener: Opener, tmp_path: Path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("can't mount a small file system here")
    try:
        memory = opener(folder / "memory")
        stored = 0
        with pytest.raises(MemoryStoreError, match=r"full|failed"):
            for i in range(400):
                memory.add(scene("word " * 500), text=f"entry number {i}", session="s")
                stored += 1
        assert stored > 3 and memory.stats().scenes == stored and memory.verify() == []
        memory.close()
        with opener(folder / "memory") as again:
            assert again.stats().scenes == stored and again.verify() == []
    finally:
        memory.close()
        subprocess.run(["umount", str(folder)], check=True)


@needs_fork
def test_a_read_only_folder_can_be_read_and_says_why_it_cannot_be_written(opener: Opener):
    base = Path(tempfile.mkdtemp(prefix="ltm-read-only-"))  # tmp_path lies below a folder that others can't enter
    try:
        folder = base / "memory"
        with opener(folder) as memory:
            memory.add(scene("A."), text="the quince tree")
        for path in (base, folder):
            path.chmod(0o555)
        for path in folder.iterdir():
            path.chmod(0o444)
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                if os.geteuid() == 0:
                    os.seteuid(65534)
                with SceneMemory.open(folder, HashedEmbedder()) as inner:
                    found = inner.recall("quince", 1)[0].scene.text
                    try:
                        inner.add(scene("B."), text="two")
                    except MemoryStoreError as error:
                        code = 7 if found == "the quince tree" and "can't be written" in str(error) else 2
                try:
                    SceneMemory.open(base / "new", HashedEmbedder())
                    code = 3
                except MemoryStoreError:
                    pass
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        base.chmod(0o755)
        (base / "memory").chmod(0o755)
        shutil.rmtree(base)


def test_a_second_writer_waits_or_gets_a_clear_word(opener: Opener):
    memory = opener(timeout=300.0)
    memory.add(scene("A."), text="one")
    other = sqlite3.connect(memory.folder / STORE_NAME, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    quick = opener(timeout=0.05)
    with pytest.raises(MemoryStoreError, match="in use by another process"):
        quick.add(scene("B."), text="two")
    assert quick.recall("one", 1)[0].scene.text == "one"  # reading doesn't wait
    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    memory.add(scene("C."), text="three")
    other.close()
    assert memory.verify() == [] and memory.stats().scenes == 2


def test_a_store_whose_making_was_cut_short_is_made(tmp_path: Path):
    db = sqlite3.connect(tmp_path / STORE_NAME)
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    assert (tmp_path / STORE_NAME).stat().st_size
    SceneStore(tmp_path / STORE_NAME).close()


def test_two_processes_add_at_once(tmp_path: Path):
    program = (
        "import sys; sys.path.insert(0, {root!r})\n"
        "from tests.memory.hashed import HashedEmbedder\n"
        "from ltm_edge.scene.record import Scene\n"
        "from ltm_edge.scene_memory import SceneMemory\n"
        "with SceneMemory.open({folder!r}, HashedEmbedder(), timeout=300.0) as m:\n"
        "    for i in range(40):\n"
        "        s = Scene((('you', 'x'),), 'a vs b', ('host',), 'c', f'Reply {{sys.argv[1]}} {{i}}.')\n"
        "        m.add(s, text=f'process{{sys.argv[1]}} item{{i}}', session=sys.argv[1])\n"
    ).format(root=str(Path(__file__).parents[2]), folder=str(tmp_path / "memory"))
    running = [subprocess.Popen([sys.executable, "-c", program, str(n)], stderr=subprocess.PIPE) for n in range(3)]
    for one in running:
        _, errors = one.communicate()
        assert one.returncode == 0, errors.decode()
    with SceneMemory.open(tmp_path / "memory", HashedEmbedder()) as memory:
        assert memory.stats().scenes == 120 and memory.verify() == []
        for n in range(3):
            assert len(memory.chain(memory.scenes(session=str(n), limit=1)[0].id).scenes) == 40


def test_migrations_are_applied_once_and_a_newer_store_is_refused(opener: Opener, monkeypatch: pytest.MonkeyPatch):
    with opener() as memory:
        memory.add(scene("A."), text="one")
    path = memory.folder / STORE_NAME

    def second(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE scenes ADD COLUMN mood TEXT")

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, (3, "mood", second)])
        for _ in range(2):
            with opener() as memory:
                assert memory.recall("one", 1)[0].scene.text == "one"
        db = sqlite3.connect(path)
        assert db.execute("SELECT number, name FROM migrations").fetchall()[-1] == (3, "mood")
        db.close()
    with pytest.raises(MemoryStoreError, match=r"newer version of ltm-edge .format 3, this one reads up to 2"):
        opener()


def test_a_migration_that_fails_changes_nothing(opener: Opener, monkeypatch: pytest.MonkeyPatch):
    with opener() as memory:
        memory.add(scene("A."), text="one")

    def broken(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE scenes ADD COLUMN mood TEXT")
        raise sqlite3.OperationalError("no")

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, (3, "broken", broken)])
        with pytest.raises(MemoryStoreError):
            opener()
    with opener() as memory:
        assert memory.recall("one", 1)[0].scene.text == "one" and memory.verify() == []


@pytest.mark.parametrize(
    "content", [b"not a database at all, " * 100, b"SQLite format 3\0" + bytes(8176), b"\0" * 4096]
)
def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path, content: bytes):
    path = tmp_path / STORE_NAME
    path.write_bytes(content)
    with pytest.raises(MemoryStoreError, match=STORE_NAME):
        SceneStore(path)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_left_alone(tmp_path: Path):
    db = sqlite3.connect(tmp_path / STORE_NAME)
    db.execute("CREATE TABLE recipes (name TEXT)")
    db.commit()
    db.close()
    with pytest.raises(MemoryStoreError, match="another program"):
        SceneStore(tmp_path / STORE_NAME)


def test_a_damaged_store_is_noticed(opener: Opener):
    with opener() as memory:
        for i in range(200):
            memory.add(scene(f"Reply {i}."), text=f"topic{i} and more of it")
        memory.compact()
    path = memory.folder / STORE_NAME
    data = bytearray(path.read_bytes())
    for page in range(3 * 8192, len(data), 8192):
        data[page : page + 64] = os.urandom(64)
    path.write_bytes(data)
    try:
        with opener() as memory:
            assert memory.verify()
    except MemoryStoreError as error:
        assert "damaged" in str(error)


def test_doctor_looks_at_every_memory_even_while_it_is_used(opener: Opener, tmp_path: Path):
    from ltm_edge.cli.doctor_checks import check_scene_memories

    memory = opener(tmp_path / "memory" / "mine")
    memory.add(scene("A."), text="one")
    broken = tmp_path / "memory" / "broken"
    broken.mkdir()
    (broken / STORE_NAME).write_bytes(b"not a database at all, " * 100)
    found = {check.name: (check.status, check.value) for check in check_scene_memories(tmp_path / "memory")}
    assert found["memory mine"] == ("ok", "1 scenes, whole")
    assert found["memory broken"][0] == "problem"
    assert memory.add(scene("B."), text="two").status == "added"


def test_a_folder_in_the_store_s_place_is_refused(tmp_path: Path):
    (tmp_path / STORE_NAME).mkdir()
    with pytest.raises(MemoryStoreError, match="not a file"):
        SceneStore(tmp_path / STORE_NAME)
