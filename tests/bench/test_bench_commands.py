"""`ltm-edge bench` on the demo model, at its smallest settings."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ltm_edge.bench import masks as masks_module
from ltm_edge.bench import peers
from ltm_edge.bench.documents import Case
from ltm_edge.bench.masks import OwnVocab
from ltm_edge.cli.main import cli

pytestmark = pytest.mark.needs_model

SMALL = Case("small", 'root ::= "a word: " [a-z]+ "\\n  and its end\\n"', "a word: house\n  and its end\n")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks_module, "cases", lambda: (SMALL,))


def figures(*arguments: str) -> Mapping[str, Any]:
    result = CliRunner().invoke(cli, ["bench", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.usefixtures("small")
def test_masks_has_a_row_for_every_engine():
    report = figures("masks", "--rounds", "1")
    (table,) = report["tables"]
    rows = {row["engine"]: row for row in table["rows"]}
    assert list(rows)[:2] == ["ltm-edge", "ltm-edge, inside"]
    assert {"llama.cpp, whole vocabulary", "llama.cpp, one candidate", "llguidance", "xgrammar"} <= set(rows)
    ours = rows["ltm-edge"]
    assert ours["warm"]["mean"] > 0 and ours["memory"] > 0 and ours["vocabulary_ms"] > 0
    assert ours["written"]["non_canonical"] == 0
    assert 0 < ours["written"]["forced"] <= ours["determined"]
    assert rows["llama.cpp, one candidate"]["warm"]["mean"] > 0 < rows["llama.cpp, whole vocabulary"]["warm"]["mean"]


@pytest.mark.usefixtures("small")
def test_masks_prints_a_table():
    result = CliRunner().invoke(cli, ["bench", "masks", "--rounds", "1"])
    assert result.exit_code == 0, result.output
    assert "tokens forced" in result.stdout and "llama.cpp, whole vocabulary" in result.stdout
    assert "measuring" not in result.stdout


@pytest.mark.parametrize("engine", ["llguidance", "xgrammar"])
def test_an_engine_that_is_not_installed_is_a_row(monkeypatch: pytest.MonkeyPatch, demo_path: Path, engine: str):
    right = importlib.import_module

    def missing(name: str) -> Any:
        if name.startswith(engine):
            raise ImportError(name)
        return right(name)

    monkeypatch.setattr(peers.importlib, "import_module", missing)
    own, theirs = OwnVocab(demo_path), peers.PeerVocab(demo_path)
    if engine == "llguidance":
        row = peers.llguidance_row(theirs, SMALL, [1], own.cut, 1)
    else:
        row = peers.xgrammar_row(theirs, SMALL, [1], 1)
    assert (row.engine, row.note, row.warm) == (engine, "not installed", None)


def test_a_file_that_is_not_there_is_one_line():
    result = CliRunner().invoke(cli, ["bench", "masks", "nowhere.gguf"])
    assert result.exit_code == 1
    assert "nowhere.gguf" in result.stderr and "Traceback" not in result.output


def test_decode_writes_every_request_in_every_way():
    report = figures("decode", "--rounds", "1", "--requests", "1", "--threads", "1", "--tokens", "60")
    runs = {run["way"]: run for run in report["runs"]}
    assert len(runs) == 11
    for way in ("compiled, greedy", "masks, greedy", "masks, sampled"):
        assert runs[way]["complete"], way
    assert runs["compiled, greedy"]["forced"] > 0
    assert runs["masks, greedy"]["forced"] == 0
    assert runs["free, greedy"]["tokens"] <= runs["masks, greedy"]["tokens"]
    assert report["summary"]["scene_over_llama_cpp_python"] > 0
    assert 0 < report["summary"]["forced_share"] < 1
    assert runs["llama.cpp's own loop"]["tokens"] == runs["plain, greedy, prompt kept"]["tokens"]
    assert report["summary"]["plain_over_llama_cpp_loop"] > 0
    # Sizes don't depend on what else the machine does.
    if report["peak_bytes"] is not None:
        assert report["summary"]["peak_memory_over_llama_cpp"] < 1.1


def test_turn_compares_the_passes_of_a_turn_and_whole_turns():
    report = figures("turn", "--rounds", "1", "--tokens", "200", "--scenes", "100")
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["four drafts, per step"]["ratio"] > 0
    assert rows["three critics"]["ratio"] > 0 and rows["change of adapters"]["ms"] > 0
    assert rows["second start to first token"]["note"].split()[0] != "0"
    full, revised = rows["full turn"], rows["turn with one revision"]
    assert full["ratio"] > 0 and "2 revisions" in revised["note"]
    assert rows["turn with a consilium of four"]["ratio"] > 0
    assert list(report["stages"]) == ["full turn", "with one revision", "consilium of four"]
    for way, stages in report["stages"].items():
        assert stages["draft"] > 0 and stages["recall"] > 0 and stages["store"] > 0, way
        assert stages["critics: probe"] > 0 and stages["critics: embed"] > 0, way
        assert (stages["revise"] > 0) == (way == "with one revision")


@pytest.fixture
def two_requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.yaml"
    requests = [
        {"id": "boots", "lang": "en", "text": "My boots leak and the hike is on Saturday."},
        {"id": "choir", "lang": "en", "text": "I sing in a choir and nobody hears me."},
    ]
    path.write_text(json.dumps({"requests": requests}), "utf-8")
    return path


def test_quality_answers_every_request_in_every_way(two_requests: Path, tmp_path: Path):
    out = tmp_path / "report.json"
    report = figures("quality", "--requests", str(two_requests), "--tokens", "110", "--out", str(out))
    rows = {row["way"]: row for row in report["summaries"]}
    assert list(rows) == ["plain", "routing", "loop", "routing, loop", "the overlay"]
    for way, row in rows.items():
        assert (row["answers"], row["complete"], row["valid"]) == (2, 1.0, 1.0), way
        assert row["length"] > 0 and 0 < row["distinct2"] <= 1 and 0 <= row["repeated3"] < 1, way
        assert -1 <= row["control"] <= 1 and row["seconds"] > 0, way
    for way in ("plain", "routing"):
        assert (rows[way]["revised"], rows[way]["refused"], rows[way]["council"]) == (0.0, 0.0, 0.0)
    assert rows["plain"]["against_plain"]["similarity"]["mean"] == 0.0
    answers = {(one["way"], one["request"]): one for one in json.loads(out.read_text("utf-8"))["answers"]}
    assert len(answers) == 10
    for name in ("boots", "choir"):
        assert answers["plain", name]["shown"].startswith(answers["plain", name]["response"])
        # Without routing the loop begins with the plain draft.
        assert answers["loop", name]["first"] == answers["plain", name]["response"]
        for way in rows:
            one = answers[way, name]
            assert one["kept"] or one["response"] == one["first"], (way, name)


def test_channels_answer_every_request(two_requests: Path, tmp_path: Path):
    out = tmp_path / "report.json"
    report = figures("channels", "--requests", str(two_requests), "--tokens", "110", "--out", str(out))
    assert report["channels"] == ["logician", "poet", "archetype", "ironist"]
    (level,) = report["levels"]
    assert level["name"] == "prompts only" and "no channel adapters" in report["note"]
    assert sum(map(sum, level["told"]["confusion"])) == 8 and 0 < level["told"]["p"] <= 1
    assert level["complete"] == 1.0 and level["alike"] == 0.0
    (full,) = json.loads(out.read_text("utf-8"))["levels"]
    assert {len(of) for of in full["responses"].values()} == {4}


def test_convert_tells_speed_memory_and_what_opening_adds():
    report = figures("convert", "--rounds", "1")
    *ours, theirs = report["rows"]
    assert len(ours) == 2 and theirs["program"] == "llama-export-lora"
    for row in ours:
        assert row["program"].startswith("ltm-edge convert") and row["note"] == "" and row["cpu"] > 0
        assert row["peak"] < row["bound"]
    opening = report["opening"]
    assert 0 < opening["again_cpu"] <= opening["first_cpu"] and opening["load"] > 0
