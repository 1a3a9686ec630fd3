"""`ltm-edge log`, over real memories and over log files; the plots' arithmetic."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm_edge.cli.main import cli
from ltm_edge.cli.plots import blocks_of
from ltm_edge.errors import InputError
from ltm_edge.memory.integration_log import LOG_NAME
from ltm_edge.memory.log_entries import read_log
from ltm_edge.scene.record import Scene
from ltm_edge.scene_memory import SceneMemory

from .conftest import Opener

Run = Callable[..., Result]
AT = 1_767_261_600.0  # 2026-01-01 10:00 UTC
DAY = 86400.0

TRAINED: list[dict[str, Any]] = [
    {"at": "2026-01-20T10:00:00+00:00", "what": "trained", "archetype": "host", "from": 3.0, "to": 2.0,
     "by": "training"},
    {"at": "2026-01-20T11:00:00Z", "what": "trained", "archetype": "host", "from": 2.0, "to": 1.5, "by": "training",
     "phase": "myth", "rows": [1, 2]},
    {"at": "2026-01-20T11:00:00+01:00", "what": "trained", "chain": "stories/work", "from": 1.0, "to": 1.25,
     "by": "training"},
]  # fmt: skip


@pytest.fixture
def utc() -> Iterator[None]:
    """The user's time is UTC, wherever this runs."""
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone can't be changed here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, utc: None) -> Run:
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path / "home"))

    def call(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["log", *args])
        assert result.exit_code == code, result.output
        return result

    return call


def told(response: str, *archetypes: str) -> Scene:
    return Scene((("you", "guest"),), "work vs rest", archetypes, "an ordinary day", response)


@pytest.fixture
def folder(opener: Opener, tmp_path: Path) -> Path:
    """A memory of three turns, in which the first scene was taken up on two days."""
    with opener(tmp_path / "mine") as memory:
        one = memory.add(
            told("The kite is red.", "host", "пилигрим"), text="what colour?", session="s", at=AT, score=0.5
        )
        for i in (1, 3):
            memory.add(
                told(f"Red kites fly {i}.", "poet"), text=f"number {i}", session="s", recalled=[one.id], at=AT + i * DAY
            )
    return tmp_path / "mine"


def written(folder: Path, text: str | bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / LOG_NAME).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def log_of(entries: object, **head: object) -> str:
    return json.dumps({"format": "ltm-integration-log", "version": 1, "entries": entries, **head})


def test_a_memory_s_log_is_a_table_and_a_plot(run: Run, folder: Path):
    out = run("--memory", str(folder)).stdout
    lines = out.splitlines()
    assert "\x1b" not in out and not any(line.endswith(" ") for line in lines)
    assert lines[0].split() == ["when", "what", "scene", "of", "from", "→", "to", "by"]
    assert [line.split() for line in lines if line.endswith("0.49 → 0.62  use")] == [
        ["2026-01-02", "10:00", "strengthened", "1", "host,", "pilgrim", "0.49", "→", "0.62", "use"]
    ]  # of 0.5, decayed for a day
    assert "2026-01-04 10:00  accepted          3  chain 1        2 → 3        use" in lines
    assert "strengthened a day, at most 1" in lines
    assert "2026-01-02 █ █ 2026-01-04" in lines
    table = [line.split() for line in lines[lines.index("strengthened a day, at most 1") + 3 :]]
    assert table == [
        ["archetype", "accepted", "score", "strengthened"],
        ["host", "1", "0.50", "█" * 24, "2"],
        ["pilgrim", "1", "0.50", "█" * 24, "2"],
        ["poet", "2", "0"],
    ]


def test_last_archetype_and_json(run: Run, folder: Path):
    short = run("--memory", str(folder), "--last", "2").stdout
    assert "the last 2 of 9 entries" in short and "2026-01-01" not in short
    only = run("--memory", str(folder), "--archetype", "Пилигрим").stdout
    assert only == run("--memory", str(folder), "--archetype", "pilgrim").stdout
    assert "poet" not in only and "chain" not in only and only.count("strengthened  ") == 2
    found = json.loads(run("--memory", str(folder), "--json", "--last", "0").stdout)
    assert [one["what"] for one in found["entries"]].count("strengthened") == 2
    assert {one["archetype"]: one["accepted"] for one in found["archetypes"]} == {"host": 1, "pilgrim": 1, "poet": 2}
    assert found["chains"] == [
        {"chain": 1, "scenes": 3, "accepted": 3, "last": "2026-01-04T10:00:00.000000+00:00", "score": 0.5}
    ]
    assert "nothing was logged of nobody" in run("--memory", str(folder), "--archetype", "nobody").stderr


def test_the_log_of_a_memory_in_use_is_up_to_date(run: Run, opener: Opener, tmp_path: Path):
    memory = opener(tmp_path / "mine")
    memory.add(told("A.", "host"), text="the red kite", session="s", at=AT)
    assert not (tmp_path / "mine" / LOG_NAME).exists()
    assert len(json.loads(run("--memory", str(tmp_path / "mine"), "--json").stdout)["entries"]) == 2


def test_a_bundle_s_log_shows_what_training_gained(run: Run, tmp_path: Path):
    written(tmp_path / "bundle", log_of(TRAINED))
    lines = run("--bundle", str(tmp_path / "bundle")).stdout.splitlines()
    assert [line.split() for line in lines[1:2]] == [
        ["2026-01-20", "10:00", "trained", "host", "3", "→", "2", "training"]
    ]
    table = [line.split() for line in lines[lines.index("") + 1 :]]
    assert table == [
        ["trained", "from", "→", "to", "change", "fell", "by"],
        ["host", "3.00", "→", "1.50", "-50%", "█" * 12],
        ["chain", "stories/work", "1.00", "→", "1.25", "+25%"],
    ]
    found = json.loads(run("--bundle", str(tmp_path / "bundle"), "--json").stdout)
    assert found == {"entries": TRAINED, "archetypes": [], "chains": []}
    written(tmp_path / "bundle", log_of([]))
    assert "nothing was logged yet" in run("--bundle", str(tmp_path / "bundle")).stderr


DAMAGED: list[tuple[str | bytes, str]] = [
    (log_of(TRAINED)[:-40], "damaged or cut off"),
    (b"\xff\xfe{}", "not UTF-8"),
    ("", "not JSON"),
    ("[" * 100_000, "not JSON"),
    ("[]", "no integration log"),
    ('{"entries": []}', "no integration log"),
    (log_of([], version=2), "version 2"),
    (log_of([], version="1"), "version '1'"),
    (log_of({}), "entries: expected a list"),
    (log_of([TRAINED[0], 7]), r"entries\[1\]: expected an object"),
    (log_of([{**TRAINED[0], "what": None}]), r"entries\[0\]: what"),
    (log_of([{**TRAINED[0], "at": "yesterday"}]), r"entries\[0\]: at"),
    (log_of([{**TRAINED[0], "at": "2026-01-20T10:00:00"}]), r"entries\[0\]: at"),
    (log_of([{**TRAINED[0], "at": 5}]), r"entries\[0\]: at"),
    (log_of([{**TRAINED[0], "from": "3"}]), r"entries\[0\]: from"),
    (log_of([{**TRAINED[0], "to": float("nan")}]), r"entries\[0\]: to"),
    (log_of([{**TRAINED[0], "to": 10**400}]), r"entries\[0\]: to"),
    (log_of([{**TRAINED[0], "scene": True}]), r"entries\[0\]: scene"),
    (log_of([{**TRAINED[0], "archetype": ["host"]}]), r"entries\[0\]: archetype"),
    (log_of([{**TRAINED[0], "chain": 1.5}]), r"entries\[0\]: chain"),
]


@pytest.mark.parametrize(("text", "why"), DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_log_is_refused_in_one_line(run: Run, tmp_path: Path, text: str | bytes, why: str):
    folder = written(tmp_path / "bundle", text)
    result = run("--bundle", str(folder), code=1)
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: {folder / LOG_NAME}: ")
    assert re.search(why, result.stderr), result.stderr


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["at", "what", "scene", "archetype", "chain", "from", "to", "by", "else"])


@settings(max_examples=200, deadline=None)
@given(entries=st.lists(st.dictionaries(KEYS, JSON) | JSON, max_size=3), cut=st.integers(0, 200))
def test_any_file_is_a_log_or_refused(tmp_path_factory: pytest.TempPathFactory, entries: list[Any], cut: int):
    path = tmp_path_factory.getbasetemp() / LOG_NAME
    for text in (
        log_of(entries),
        log_of([{"what": "x", **one} for one in entries if isinstance(one, dict)])[: -1 - cut],
    ):
        path.write_text(text, encoding="utf-8")
        with contextlib.suppress(InputError):
            assert [one.record for one in read_log(path)] == json.loads(text)["entries"]


def test_words_of_a_log_cannot_steer_the_terminal(run: Run, tmp_path: Path):
    entry = {"what": "tra\x1b[2Jined", "archetype": "x" * 500 + "\n", "by": "\x07", "from": 1}
    out = run("--bundle", str(written(tmp_path / "bundle", log_of([entry])))).stdout
    assert "\x1b" not in out and "\x07" not in out and "tra\\x1b[2Jined" in out and "1 → ?" in out
    assert max(map(len, out.splitlines())) < 140


def test_what_is_not_there_is_said(run: Run, tmp_path: Path):
    assert "no memory there" in run(code=1).stderr
    assert not (tmp_path / "home" / "memory").exists()
    assert "no memory there" in run("--memory", str(tmp_path / "no"), code=1).stderr
    assert "no bundle" in run("--bundle", str(tmp_path), code=1).stderr
    assert "no such file" in run("--bundle", str(tmp_path / "no.gguf"), code=1).stderr
    assert "give one" in run("--bundle", "a", "--memory", "b", code=2).stderr


def test_the_demo_bundle_s_log_can_be_read():
    assert isinstance(read_log(Path(__file__).parents[2] / "bundles" / "ltm-vortex-135m" / LOG_NAME), list)


def test_a_memory_s_own_file_is_a_log(folder: Path):
    with SceneMemory.open(folder) as memory:
        from_events = memory.log()
    from_file = read_log(folder / LOG_NAME)
    assert [(e.at, e.what, e.before, e.after) for e in from_file] == [
        (e.at, e.what, e.before, e.after) for e in from_events
    ]


def test_a_terminal_without_block_characters_gets_plain_ones(folder: Path):
    out = subprocess.run(
        [sys.executable, "-c", "import io, sys; from ltm_edge.cli import log, main, console\n"
         "console.set_up_streams = lambda: None\n"
         "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='ascii', errors='replace')\n"
         f"main.cli.main(['log', '--memory', {str(folder)!r}])"],
        capture_output=True, text=True, check=True, env={**os.environ, "TZ": "UTC"},
    ).stdout  # fmt: skip
    assert "2026-01-02 # # 2026-01-04" in out
    assert "#" * 24 in out


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_bars_and_sparklines_are_proportional(encoding: str):
    blocks = blocks_of(io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    for most in (1, 3, 7, 1000):
        lengths = [len(blocks.bar(value, most, 24)) for value in range(most + 1)]
        assert lengths == sorted(lengths) and lengths[0] == 0 and lengths[1] >= 1 and lengths[-1] == 24
        assert all(abs(length - 24 * value / most) <= 1 for value, length in enumerate(lengths))
        line = blocks.spark(range(most + 1))
        assert len(line) == most + 1 and line[0] == " " and " " not in line[1:]
    assert blocks.bar(float("nan"), 1, 5) == blocks.bar(1, 0, 5) == blocks.spark([]) == ""
