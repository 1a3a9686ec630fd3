"""Much of it, and what is meant to harm: imports of any length, large scenes, names that are paths, YAML bombs."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from ltm_edge.cli.main import cli
from ltm_edge.errors import InputError, LtmError, SchemaError
from ltm_edge.scene.pvq import MAX_TEXT_CHARS
from ltm_edge.scene_memory import SceneMemory

from .conftest import Opener, scene
from .hashed import HashedEmbedder

LINES = 1_000_000 if os.environ.get("LTM_SOAK") else 20_000
MEGABYTES = 10 * 1024 * 1024


def record(number: int, text: str) -> dict[str, object]:
    return {
        "kind": "scene",
        "uid": f"{number:032x}",
        "level": "scene",
        "created": "2026-01-01T12:00:00.000000+00:00",
        "session": f"s{number // 50}",
        "template": "hearth",
        "phase": None,
        "provenance": "said",
        "strength": 0.5,
        "strengthened": "2026-01-01T12:00:00.000000+00:00",
        "pinned": False,
        "echo": False,
        "keys": [],
        "superseded_by": None,
        "superseded_at": None,
        "text": text,
        "scene": scene(f"Reply {number}.").to_dict(),
    }


def lines(*records: dict[str, object]) -> io.BytesIO:
    head = {"format": "ltm-memory-scenes", "version": 1}
    return io.BytesIO("".join(json.dumps(one) + "\n" for one in (head, *records)).encode())


class Endless(io.RawIOBase):
    """An export of any length, made while it is read."""

    def __init__(self, head: bytes, count: int) -> None:
        self._count, self._next, self._rest = count, 0, head
        self.bytes = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        if not self._rest:
            if self._next == self._count:
                return b""
            self._next += 1
            text = f"word{self._next % 997} and word{self._next % 9973} " + "filler " * 20
            self._rest = json.dumps(record(self._next, text)).encode() + b"\n"
        line, self._rest = self._rest[:size], self._rest[size:] if size and size > 0 else b""
        self.bytes += len(line)
        return line


@pytest.fixture
def head(memory: SceneMemory) -> bytes:
    out = io.StringIO()
    memory.export(out)
    return out.getvalue().encode()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_import_of_any_length_streams(
    tmp_path: Path, head: bytes, record_property: Callable[[str, object], None]
) -> None:
    """In a process of its own: the most memory that it ever had is what counts. LTM_SOAK=1 takes a million lines."""
    import resource

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with SceneMemory.open(tmp_path / "m", HashedEmbedder(dim=8)) as memory:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                source = Endless(head, LINES)
                done = memory.import_(source, skip_bad=False)  # type: ignore[arg-type]
                grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
                good = done.scenes == LINES and memory.stats().scenes == LINES and memory.stats().unembedded == 0
                os.write(write, f"{grown} {source.bytes}".encode())
                code = 0 if good else 2
        finally:
            os._exit(code)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    grown, size = (int(part) for part in os.read(read, 100).split())
    os.close(read)
    record_property("lines", LINES)
    record_property("kilobytes grown", grown)
    assert grown * 1024 < 64 * 2**20 + LINES * 400  # ids, the index, and a cache; never the text itself
    assert size > LINES * 500


def test_one_uid_twice(memory: SceneMemory, head: bytes) -> None:
    same, other = record(7, "the quince tree"), record(7, "another text")
    body = "".join(json.dumps(one) + "\n" for one in (same, same, other)).encode()
    with pytest.raises(InputError, match=r":4: uid 0+7: stands for another scene"):
        memory.import_(io.BytesIO(head + body))
    assert memory.stats().scenes == 0
    done = memory.import_(io.BytesIO(head + body), skip_bad=True)
    assert (done.scenes, done.known, done.bad_lines) == (1, 1, 1) and done.bad[0][0] == 4
    assert [one.text for one in memory.scenes()] == ["the quince tree"] and memory.verify() == []


def test_ten_megabytes_are_refused_in_a_line_and_harm_nothing(memory: SceneMemory, head: bytes) -> None:
    kept = memory.add(scene("A."), text="the quince tree")
    big = "quince " * (MEGABYTES // 7)
    for call in (
        lambda: memory.add(scene("A."), text=big),
        lambda: memory.add(scene(big), text="a"),
        lambda: memory.recall(big),
        lambda: memory.edit(kept.id, text=big),
        lambda: memory.import_(io.BytesIO(head + json.dumps(record(7, big)).encode() + b"\n")),
    ):
        with pytest.raises(LtmError) as caught:
            call()
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
    done = memory.import_(
        io.BytesIO(head + json.dumps(record(7, big)).encode() + b"\n" + json.dumps(record(8, "b")).encode() + b"\n"),
        skip_bad=True,
    )
    assert (done.scenes, done.bad_lines) == (1, 1)
    assert memory.recall("quince", 1)[0].scene.id == kept.id and memory.verify() == []


def test_the_largest_text_that_is_taken_is_kept_whole_and_found(memory: SceneMemory) -> None:
    text = ("quince and nothing else, " * (MAX_TEXT_CHARS // 25 + 1))[: MAX_TEXT_CHARS - 20] + " zanzibar"
    done = memory.add(scene("A."), text=text)
    found = memory.get(done.id)
    assert found is not None and found.text == text
    assert memory.recall("zanzibar", 1, budget_tokens=0)[0].scene.id == done.id
    assert memory.recall(text, 1, budget_tokens=0)[0].scene.id == done.id


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "C:\\windows", "s\u202etxt", "a/b/c"])
def test_names_are_names_and_never_paths(opener: Opener, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in" / "memory"
    before = {path for path in tmp_path.rglob("*") if folder not in path.parents}
    with opener(folder) as memory:
        memory.add(scene("A."), text="one", session=name, template=name)
        memory.consolidate()
        memory.compact()
        assert memory.scenes(session=name)[0].session == name
    outside = {path for path in tmp_path.rglob("*") if folder not in path.parents} - before
    assert outside <= {folder, folder.parent} and not Path("/etc/passwd-wal").exists()


@pytest.mark.parametrize("name", ["../outside", "..", "a/../../b", "", "x" * 500])
def test_a_memory_s_name_leaves_no_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(cli, ["memory", "list", "--name", name])
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert not (tmp_path / "outside").exists() and not (tmp_path / "home" / "memory").exists()


def test_yaml_bombs_are_refused_at_once(tmp_path: Path) -> None:
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    bomb = f"a0: &a0 boom\n{levels}scene: *a29\n"
    result = CliRunner().invoke(cli, ["memory", "--folder", "x"], input=bomb)
    assert result.exit_code == 2  # options stand behind the subcommand
    result = CliRunner().invoke(cli, ["memory", "add", "--folder", str(tmp_path / "m"), "-"], input=bomb)
    assert result.exit_code == 1 and len(result.output) < 2000
    deep = "scene: " + "[" * 50_000
    result = CliRunner().invoke(cli, ["memory", "add", "--folder", str(tmp_path / "m"), "-"], input=deep)
    assert result.exit_code == 1 and len(result.output) < 2000
    with SceneMemory.open(tmp_path / "m", HashedEmbedder()) as memory:
        assert memory.stats().scenes == 0


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b", "...", "?!", "\x00"])
def test_queries_without_a_word_bring_up_nothing_or_something_but_never_fail(memory: SceneMemory, text: str) -> None:
    memory.add(scene("A."), text="the quince tree")
    for hit in memory.recall(text):
        assert hit.parts["meaning"] == 0.0 and "words" not in hit.parts
    assert memory.recall(text, least=0.28) == []


@pytest.mark.parametrize("bad", [{}, {"kind": "scene", "scene": []}, {"kind": "scene", "scene": {"response": 1}}])
def test_a_line_of_the_wrong_shape_is_named(memory: SceneMemory, head: bytes, bad: dict[str, object]) -> None:
    with pytest.raises((InputError, SchemaError), match=":2: "):
        memory.import_(io.BytesIO(head + json.dumps(bad).encode() + b"\n"))
