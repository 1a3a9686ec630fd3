"""PVQ: read leniently in what is missing, strictly in what is there."""

from __future__ import annotations

import pytest
import yaml

from ltm_edge.errors import InputError, SchemaError
from ltm_edge.scene.pvq import Pvq

FULL = """\
pvq:
  text: "I don't know whether I should keep building AGI."
  scene: {tension: "certainty vs fatigue", actors: [{you: architect}]}
  vector: {goal: "decide whether to continue", weight: 0.5}
  archetype: "initiator, pilgrim"
  phase: drama
  form: yaml
"""


def test_full_and_back() -> None:
    pvq = Pvq.from_yaml(FULL)
    assert pvq == Pvq(
        text="I don't know whether I should keep building AGI.",
        scene={"tension": "certainty vs fatigue", "actors": [{"you": "architect"}]},
        goal="decide whether to continue",
        weight=0.5,
        archetype=("initiator", "pilgrim"),
        phase="drama",
        form="yaml",
    )
    assert Pvq.from_yaml(pvq.to_yaml()) == pvq
    assert yaml.safe_load(pvq.to_yaml())["pvq"] == pvq.to_dict()
    assert Pvq.from_dict({"pvq": pvq.to_dict()}) == pvq


@pytest.mark.parametrize("text", ["hi", 'a "b" \\ c', "много\nстрок\n\n", "a\u2028b", "a\tb", "yes", "🚀", "x: y # z"])
def test_only_text_is_needed(text: str) -> None:
    pvq = Pvq(text=text)
    assert Pvq.from_yaml(pvq.to_yaml()) == pvq
    assert yaml.safe_load(pvq.to_yaml()) == {"pvq": {"text": text}}


def test_empty_and_huge_texts() -> None:
    with pytest.raises(InputError, match="empty"):
        Pvq.from_text(" \n")
    with pytest.raises(InputError, match="at most 1000000"):
        Pvq.from_text("x" * 1_000_001)


BAD = {
    "pvq: {}": "pvq.text: missing",
    "pvq: {text: 5}": "pvq.text: expected what was said",
    "pvq: {text: x, phase: dram}": "pvq.phase: found 'dram'; did you mean 'drama'?",
    "pvq: {text: x, form: picture}": "pvq.form: found 'picture'",
    "pvq: {text: x, vector: {weight: 2}}": "pvq.vector.weight: found 2; expected a number from 0 to 1",
    "pvq: {text: x, vector: {gaol: y}}": "pvq.vector.gaol: unknown key; did you mean 'goal'?",
    "pvq: {text: x, vector: go}": "pvq.vector: expected a mapping",
    "pvq: {text: x, scene: {tensions: y}}": "pvq.scene.tensions: unknown key; did you mean 'tension'?",
    "pvq: {text: x, scene: {tension: 5}}": "pvq.scene.tension: expected text",
    "pvq: {text: x, scene: {actors: [x]}}": "pvq.scene.actors: expected a list",
    "pvq: {text: x, archetype: {a: b}}": "pvq.archetype: expected names",
    "pvq: {text: x, version: 2}": "pvq.version: version 2 is newer",
    "pvq: {txt: x}": "pvq.txt: unknown key; did you mean 'text'?",
    "pvq: {text: x}\nscene: {}": "scene: unknown key beside pvq",
    "[]": "expected a mapping",
}


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Pvq.from_yaml(text, "p.yaml")
    assert any(BAD[text] in str(problem) and problem.line for problem in caught.value.problems), caught.value.problems
