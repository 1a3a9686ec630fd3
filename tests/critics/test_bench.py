"""The bench of critics: what it reads, what it counts, and that the hand-made triples are told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ltm_edge.bench.critics import bench_critics
from ltm_edge.bench.triples import load_plain, load_triples
from ltm_edge.cli.main import cli
from ltm_edge.errors import InputError
from ltm_edge.loop.critics.critic import built_in
from ltm_edge.loop.critics.examples import KINDS, OWN_KINDS
from ltm_edge.overlay_set import load_overlay

CRITICS = built_in(load_overlay().overlay)
OWN = Path(__file__).parents[1] / "bench" / "critics"

TRIPLES = """\
triples:
  - id: {id}
    kind: {kind}
    lang: en
    request: "I have worked on the same book for nine years and I am afraid to finish it."
    good:
      actors: [{{you: "a writer"}}]
      tension: "finishing the book vs keeping it safe"
      archetype: "guardian"
      resonance_center: "one chapter and one reader"
      response: |
        Nine years kept the book safe. Finish one chapter by Friday and give it to one reader.
    damaged: {{response: "{damaged}"}}
"""
ONE = TRIPLES.format(id="a", kind="looping", damaged="x")
TWICE = ONE + ONE.removeprefix("triples:\n")
PLAIN = """\
scenes:
  - id: tap
    lang: en
    request: "The tap drips."
    scene: {actors: [{you: "wrench"}], tension: "a vs b", archetype: "guide", resonance_center: "water off",
            response: "Believe in yourself."}
"""


def write(folder: Path, count: int = 12) -> Path:
    for number in range(count):
        text = TRIPLES.format(
            id=f"loop-{number}", kind="looping", damaged="Finish it. Finish it. Finish it. Finish it."
        )
        (folder / f"loop-{number}.yaml").write_text(text)
    (folder / "off.yaml").write_text(TRIPLES.format(id="off", kind="off_topic", damaged="Salt the water first."))
    (folder / "plain.yaml").write_text(PLAIN)
    return folder


class Planted:
    """A model that says yes to good scenes."""

    def odds(self, examples, critics, done):
        return [dict.fromkeys(critics(one), 3.0 if one.kind == "good" else 1.0) for one in examples]


def test_scores_are_counted_by_critic_source_and_kind(tmp_path: Path):
    folder = write(tmp_path)
    triples = load_triples(folder)
    assert len(triples) == 13 and {one.half for one in triples} == {"tune", "report"}
    report = bench_critics(triples, CRITICS, "all", plain=load_plain(folder), hearing=Planted(), model="planted")  # type: ignore[arg-type]
    rows = {(row.critic, row.source): row for row in report.rows}
    loops = rows["recursia", "signals"]
    assert (loops.own, loops.pairs, loops.count, loops.refused, loops.alarms) == (1.0, 1.0, 12, 1.0, 0.0)
    assert rows["recursia", "probe"].own == 1.0 and rows["recursia", "probe"].alarms is None
    assert rows["recursia", "both"].own == 1.0
    assert rows["obstructio", "signals"].kinds["off_topic"] == 1.0 and rows["obstructio", "signals"].count == 1
    assert rows["insight_seeker", "signals"].alarms == pytest.approx(1 / 14)  # the hollow one among the plain scenes
    assert 0.4 < report.calibrations["recursia"]["en"].weight < 0.6
    text = "\n".join(report.lines())
    assert "13 triples of the half all" in text and "*1.00" in text and "weight" in text


def test_the_command_prints_json_and_asks_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ltm_edge.bundle.Bundle.open", lambda *_, **__: pytest.fail("a model was opened"))
    result = CliRunner().invoke(cli, ["bench", "critics", "--no-probe", "--triples", str(write(tmp_path)), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["embedder"] and report["model"] is None and report["plain"] == 1
    assert {row["source"] for row in report["rows"]} == {"signals", "signals, words only"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("triples: [{id: a}]\n", "a: not a triple: KeyError"),
        ("triples: 3\n", "expected a mapping"),
        ("- 1\n", "expected a mapping"),
        ("a: [\n", "x.yaml"),
        (TRIPLES.format(id="a", kind="boredom", damaged="x"), "known are looping"),
        (TWICE, "another one has this id"),
        ("scenes: []\n", "no triples"),
    ],
)
def test_malformed_triples_are_named(tmp_path: Path, text: str, what: str):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=what):
        load_triples(tmp_path)


@pytest.mark.skipif(not OWN.is_dir(), reason="the triples come with the source")
def test_the_hand_made_triples_are_told_apart_by_words_alone():
    triples = load_triples(OWN)
    assert len(triples) >= 200 and {one.kind for one in triples} == set(KINDS)
    report = bench_critics(triples, CRITICS, "report", plain=load_plain(OWN))
    own = {row.critic: row for row in report.rows}
    assert own["insight_seeker"].own >= 0.9 and own["recursia"].own >= 0.9
    assert own["obstructio"].own >= 0.75
    for name, kinds in OWN_KINDS.items():
        assert set(kinds) <= set(own[name].kinds)
        assert own[name].alarms is not None and own[name].alarms <= 0.35
