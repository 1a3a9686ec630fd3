"""`ltm-edge memory`, over a real store and the hashed embedder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ltm_edge import scene_memory
from ltm_edge.cli.main import cli

from .conftest import scene
from .hashed import HashedEmbedder

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(scene_memory, "_demo_embedder", HashedEmbedder)

    def call(*args: str, input: str | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["memory", *args], input=input)
        assert result.exit_code == code, result.output
        return result

    return call


def add(run: Run, response: str, text: str, session: str = "s") -> int:
    done = json.loads(
        run("add", "--text", text, "--session", session, "--json", input=scene(response).to_yaml()).stdout
    )
    return int(done["id"])


def test_every_command_has_a_line_of_help(run: Run):
    listed = run("--help").output
    for name in [
        "list",
        "search",
        "show",
        "chain",
        "graph",
        "add",
        "edit",
        "forget",
        "pin",
        "stats",
        "consolidate",
        "compact",
        "verify",
        "export",
        "import",
        "pack",
        "path",
    ]:
        assert f"  {name} " in listed
        assert run(name, "--help").output


def test_a_scene_is_added_found_shown_and_forgotten(run: Run):
    number = add(run, "What a name.", "My dog is called Rex.")
    add(run, "Fine.", "Bread for tomorrow.")
    hits = json.loads(run("search", "the", "puppy", "-k", "1", "--json").stdout)
    assert [hit["id"] for hit in hits] == [number] and hits[0]["parts"]["meaning"] > 0
    assert "My dog is called Rex." in run("search", "puppy").output
    assert "uid" in run("show", str(number)).output
    assert json.loads(run("show", str(number), "--json").stdout)["links"]
    assert len(json.loads(run("chain", str(number), "--json").stdout)["scenes"]) == 2
    assert "Rex" in run("list").output
    run("pin", str(number))
    assert json.loads(run("stats", "--json").stdout)["pinned"] == 1
    refused = run("forget", str(number), input="n\n", code=130)
    assert "Rex" in refused.output and json.loads(run("stats", "--json").stdout)["scenes"] == 2
    assert json.loads(run("forget", "--query", "rex", "--yes", "--json").stdout) == {"forgotten": [number]}
    run("compact")
    assert "all is well" in run("verify").output
    home = Path(run("path").stdout.strip())
    assert all(b"Rex" not in path.read_bytes() for path in home.iterdir())


def test_edit_consolidate_and_graph(run: Run):
    numbers = [add(run, f"Roses {i}.", f"garden roses bloom {i}") for i in range(4)]
    run("edit", str(numbers[1]), "--text", "garden roses wither")
    (arc,) = json.loads(run("consolidate", "--json").stdout)
    assert arc["level"] == "arc"
    assert "nothing to consolidate" in run("consolidate").output
    assert run("graph").stdout.startswith("<svg") and "digraph" in run("graph", "--dot").stdout
    assert f"s{numbers[0]}" in run("graph", "--dot").stdout


def test_export_import_pack(run: Run, tmp_path: Path):
    add(run, "Noted.", "the blue bicycle")
    out = run("export").stdout
    assert out.startswith('{"format":"ltm-memory"') and out.count("\n") == 2
    (tmp_path / "in.jsonl").write_text(out + "{bad\n", encoding="utf-8")
    assert "in.jsonl:3" in run("import", str(tmp_path / "in.jsonl"), "--name", "other", code=1).output
    done = run("import", str(tmp_path / "in.jsonl"), "--name", "other", "--skip-bad")
    assert "1 scenes" in done.output and "in.jsonl:3" in done.output
    assert "blue bicycle" in run("list", "--name", "other").output
    run("pack", str(tmp_path / "bundle"))
    assert (tmp_path / "bundle" / "memory" / "scenes.sqlite").is_file()
    assert "folder" in run("pack", str(tmp_path / "x.gguf"), code=1).output


def test_what_is_wrong_is_one_line(run: Run):
    bomb = "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"
    assert "alias" in run("add", input=bomb, code=1).output
    assert "no scene" in run("show", "99", code=1).output
    assert "memory name" in run("list", "--name", "../../etc", code=1).output
    assert "Say what" in run("forget", code=2).output
    assert "date" in run("forget", "--before", "soon", code=2).output
