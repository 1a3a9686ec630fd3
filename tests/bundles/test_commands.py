"""The commands new, convert, inspect and chat on bundles, as a user calls them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import CliRunner, Result

from gguf_tools.bundle_reader import BundleReader
from gguf_tools.extract import extract
from gguf_tools.reader import read_gguf
from ltm_edge.bundle import Bundle
from ltm_edge.cli.main import cli
from ltm_edge.errors import BundleError
from ltm_edge.overlay_set import load_overlay, packaged_documents
from ltm_edge.scene_memory import SceneMemory

from . import tiny

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "bundle-v1" / "golden-v1.gguf"


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.write(tiny.make("llama"), tmp_path / "base.gguf")


def test_from_nothing_to_a_bundle(tmp_path: Path, base: Path) -> None:
    folder, out = tmp_path / "my-own", tmp_path / "my-own.gguf"
    made = run("new", "my-own", "--base", base, "-o", folder)
    assert made.exit_code == 0 and f"ltm-edge convert {folder} --base {base} -o my-own.gguf" in made.output
    assert "#" in (folder / "curriculum.yaml").read_text() and (folder / "scene_templates" / "hearth.yaml").is_file()
    done = run("convert", folder, "--base", base, "-o", out)
    assert done.exit_code == 0, done.output
    reader = BundleReader.open(out)
    assert reader.name == "my-own" and load_overlay(reader.documents).overlay.name == "my-own"
    assert "curriculum.yaml" in reader.documents
    assert run("new", "my-own", "--base", base, "-o", folder).exit_code == 1
    assert run("new", "../x", "--base", base).exit_code == 2
    other = tiny.write(tiny.make("llama", seed=1), tmp_path / "other.gguf")
    refused = run("convert", folder, "--base", other, "-o", tmp_path / "x.gguf")
    assert refused.exit_code == 1 and "base_sha256" in refused.output


def test_problems_are_told_a_line_each_with_their_place(tmp_path: Path, base: Path) -> None:
    folder = tmp_path / "folder"
    run("new", "x", "--base", base, "-o", folder)
    overlay = (folder / "ltm_overlay_config.yaml").read_text().replace("max_passes: 2", "max_passes: two")
    (folder / "ltm_overlay_config.yaml").write_text(overlay)
    (folder / "curriculum.yaml").write_text("curriculum: {version: 1, phases: [], data: [a]}\n")
    field = (folder / "field_architecture.yaml").read_text().replace("to: archetype", "to: archetypes")
    (folder / "field_architecture.yaml").write_text(field)
    done = run("convert", folder, "--base", base, "-o", tmp_path / "x.gguf")
    lines = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert done.exit_code == 1 and len(lines) >= 3
    for words in ("self_loop.max_passes", "curriculum.phases", "no zone named 'archetypes'"):
        assert any(words in line for line in lines), words
    assert not (tmp_path / "x.gguf").exists()


def test_documents_that_a_folder_lacks_are_frozen_into_the_file(tmp_path: Path, base: Path) -> None:
    """A bundle must not change its behaviour with the version of ltm-edge that opens it."""
    run("convert", tiny.bundle(tmp_path / "folder"), "--base", base, "-o", tmp_path / "x.gguf")
    documents = BundleReader.open(tmp_path / "x.gguf").documents
    packaged = packaged_documents()
    assert {name: documents[name] for name in packaged if name != "ltm_overlay_config.yaml"} == {
        name: text for name, text in packaged.items() if name != "ltm_overlay_config.yaml"
    }


def test_inspect_shows_the_bundle() -> None:
    shown = run("inspect", GOLDEN).output
    rows = {line[:16].strip(): line[17:].strip() for line in shown.splitlines()}
    assert rows["bundle"] == "golden-v1" and rows["adapters"].startswith("poet (4.5 kB)")
    assert rows["critics"] == "INSIGHT-SEEKER, OBSTRUCTIO, RECURSIA" and rows["templates"] == "hearth, initiation"
    assert rows["base"].startswith("tiny llama, sha256 ") and rows["LoRA"].startswith("merged at scale 1.0")
    assert "will (will)" in rows["zones"] and "memory -> archetype 0.4" in rows["links"]
    assert rows["licence"] == "cc0-1.0" and "begins with 51 B in 2 files" in rows["memory"]
    assert json.loads(run("inspect", "--json", GOLDEN).output)["ltm"]["ltm.name"] == "golden-v1"


def test_map_names_every_part() -> None:
    found = yaml.safe_load(run("inspect", "--map", GOLDEN).output)["ltm_architect_map"]
    assert found["zones"]["poet"]["adapter"] == "channels/poet.gguf"
    assert found["zones"]["poet"]["head_gates"] == {"0": {"1": 1.5}}
    assert {"to": "archetype", "weight": 0.4} in found["zones"]["memory"]["links"]
    assert set(found["templates"]) == {"hearth", "initiation"} and "pilgrim" in found["archetypes"]
    assert "initiation" in found["archetypes"]["pilgrim"]["templates"]
    assert "draft -> RECURSIA" in found["turn"]


def test_drawing_has_every_zone_and_link() -> None:
    root = ElementTree.fromstring(run("inspect", "--svg", GOLDEN).output)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    field = load_overlay(BundleReader.open(GOLDEN).documents).field
    assert set(field.zones) <= set(texts)
    assert sum(element.tag.endswith("line") for element in root.iter()) == len(field.links)


def test_inspect_says_once_what_is_wrong_with_a_bundle(tmp_path: Path) -> None:
    """Entries that aren't known, and a sidecar folder that isn't there: each in the text and in the JSON."""
    newer, alone = tmp_path / "newer.gguf", tmp_path / "alone.gguf"
    version = b"ltm.format_version" + struct.pack("<IQ", 8, 1)
    newer.write_bytes(GOLDEN.read_bytes().replace(version + b"1", version + b"9"))
    alone.write_bytes(GOLDEN.read_bytes())
    for path, words in ((newer, "format version 9"), (alone, "manifest.json")):
        shown = run("inspect", path)
        assert shown.exit_code == 0 and len([line for line in shown.output.splitlines() if words in line]) == 1
        assert words in json.loads(run("inspect", "--json", path).output)["ltm_problem"]


def test_inspect_of_a_plain_model_and_of_a_damaged_bundle(tmp_path: Path, base: Path) -> None:
    assert "bundle" not in run("inspect", base).output
    assert "hearth" in yaml.safe_load(run("inspect", "--map", base).output)["ltm_architect_map"]["templates"]
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(GOLDEN.read_bytes())
    shown = run("inspect", alone)
    assert shown.exit_code == 0 and "manifest.json: no such file" in shown.output
    assert isinstance(run("inspect", "--map", alone).exception, SystemExit)
    assert run("inspect", "--map", "--svg", base).exit_code == 2


def test_example_bundle_is_sound(tmp_path: Path, demo_path: Path) -> None:
    folder = ROOT / "bundles" / "ltm-vortex-135m"
    done = run("convert", folder, "--base", "demo", "-o", tmp_path / "v.gguf")
    assert done.exit_code == 0, done.output
    assert any(line.startswith("left out") and "README.md" in line for line in done.output.splitlines())
    for name in ("ltm_overlay_config.yaml", "field_architecture.yaml", "curriculum.yaml"):
        assert "#" in (folder / name).read_text("utf-8"), name
    assert read_gguf(tmp_path / "v.gguf").text("ltm.name") == "ltm-vortex-135m"


@pytest.mark.needs_model
def test_a_bundle_speaks_with_what_is_in_it(tmp_path: Path, demo_path: Path) -> None:
    """Its own name, templates, prompts and adapters, and a folder of the user's only where one is given."""
    folder = tmp_path / "folder"
    run("new", "own", "--base", "demo", "-o", folder)
    for template in (folder / "scene_templates").glob("*.yaml"):
        if template.name not in ("hearth.yaml", "initiation.yaml"):
            template.unlink()
    prompts = (folder / "prompts.yaml").read_text("utf-8").replace("kind and practical helper", "careful carpenter")
    (folder / "prompts.yaml").write_text(prompts, "utf-8")
    field = (folder / "field_architecture.yaml").read_text("utf-8")
    gates = "      head_gates: {3: {0: 1.25}}\n      sampling: {temperature: 0.9}\n"
    (folder / "field_architecture.yaml").write_text(
        field.replace("      sampling: {temperature: 0.9}\n", gates), "utf-8"
    )
    assert run("convert", folder, "--base", "demo", "-o", tmp_path / "own.gguf").exit_code == 0
    with Bundle.open(tmp_path / "own.gguf", ctx=1024) as bundle:
        assert bundle.name == "own" and list(bundle.templates) == ["hearth", "initiation"]
        assert list(bundle.adapters) == ["poet"] and bundle.adapters["poet"].is_file()
        assert "careful carpenter" in bundle.overlay_set.prompts.languages["en"].system
        with bundle.session() as session:
            reply = session.send("I want to build a shelf.", seed=1)
        assert reply.scene.response and reply.trace["template"]["name"] in ("hearth", "initiation")
    with Bundle.open(tmp_path / "own.gguf", ctx=1024, overlay=ROOT / "ltm_edge" / "overlay") as bundle:
        assert bundle.name == "default"
    (tmp_path / "own.ltm" / "channels" / "poet.gguf").write_bytes(b"")
    with pytest.raises(BundleError, match=r"poet\.gguf: has 0 bytes"):
        Bundle.open(tmp_path / "own.gguf")


@pytest.mark.needs_model
def test_opening_a_bundle_reads_its_header_once(
    demo_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary of 10^5 words takes its time; what opening costs in all is measured by `ltm-edge bench convert`."""
    from gguf_tools import bundle_reader
    from ltm_edge import models

    run("convert", tiny.bundle(tmp_path / "folder"), "--base", "demo", "-o", tmp_path / "x.gguf")
    read: list[Any] = []
    for module in (bundle_reader, models):
        monkeypatch.setattr(module, "read_gguf", lambda path: read.append(path) or read_gguf(path))
    with Bundle.open(tmp_path / "x.gguf", ctx=256) as bundle:
        assert bundle.name == "tiny" and len(read) == 1


def test_a_bundle_s_log_is_read_from_its_folder_and_from_its_sidecar(tmp_path: Path, base: Path) -> None:
    folder, out = tmp_path / "folder", tmp_path / "out.gguf"
    run("new", "x", "--base", base, "-o", folder)
    entry = {"what": "trained", "archetype": "host", "from": 2.5, "to": 1.5, "by": "training", "steps": 10}
    log = {"format": "ltm-integration-log", "version": 1, "entries": [entry]}
    (folder / "integration_log.json").write_text(json.dumps(log))
    assert run("convert", folder, "--base", base, "-o", out).exit_code == 0
    shown = [run("log", "--bundle", path, "--json") for path in (folder, out)]
    assert [json.loads(one.stdout)["entries"] for one in shown] == [[entry], [entry]]
    plain = run("log", "--bundle", base)
    assert plain.exit_code == 1 and "a plain model" in plain.output
    assert "nothing was logged yet" in run("log", "--bundle", GOLDEN).output
    (tmp_path / "out.ltm" / "integration_log.json").write_text("{}")
    assert "integration_log.json" in run("log", "--bundle", out).output


def test_a_faiss_memory_becomes_a_scene_store(tmp_path: Path, base: Path) -> None:
    """Scenes and plain texts are taken, in an order that a session can follow; the same folder gives the same bytes."""
    told = {
        "actors": [{"you": "архитектор"}],
        "tension": "уверенность vs усталость",
        "archetype": "инициатор",
        "resonance_center": "воля к продолжению",
        "response": "Ты не знаешь, и это честно.",
    }
    records = [
        {"scene": told, "text": "Продолжать ли?", "session": "s", "created": "2025-06-17T10:00:00Z"},
        {"scene": {**told, "response": "Тогда отдохни."}, "text": "Я устал", "session": "s", "uid": "ab" * 16},
        {"page_content": "A kettle is descaled\nwith vinegar."},
        {"vector": 4},
        "Ein Satz",
    ]
    folder = tiny.bundle(tmp_path / "folder", **{"memory_faiss/meta.json": {"scenes": records}})
    (folder / "memory_faiss" / "scene_embeddings.index").write_bytes(b"IxFI")
    done = run("convert", folder, "--base", base, "-o", tmp_path / "one.gguf")
    assert done.exit_code == 0 and "4 scenes, imported from memory_faiss/" in done.output
    assert run("convert", folder, "--base", base, "-o", tmp_path / "two.gguf").exit_code == 0
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    with SceneMemory.open(tmp_path / "memory", lambda: None) as memory:
        assert memory.seed(tmp_path / "one.ltm" / "memory") == 4
        lore, line, first, second = sorted(memory.scenes(), key=lambda scene: scene.created)
        assert (first.text, first.created_at.year, second.uid) == ("Продолжать ли?", 2025, "ab" * 16)
        assert (lore.scene.response, line.scene.response) == ("A kettle is descaled\nwith vinegar.", "Ein Satz")
        assert [(link.source, link.target) for link in memory.links()] == [(second.id, first.id)]
    extract(tmp_path / "one.gguf", tmp_path / "again")
    made = run("convert", tmp_path / "again", "--base", tmp_path / "one.gguf", "-o", tmp_path / "three.gguf")
    assert "the folder's scene store" in made.output
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "three.gguf").read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "meta.json: not JSON"),
        (b'[{"scene": {"response": "x"}}]', "scenes[0]: actors"),
        (b'{"format": "ltm-memory-faiss", "version": 2, "scenes": []}', "version 2"),
        (b'[{"scene": {}, "text": "x"}]', "scenes[0]"),
        (b'{"dim": 384}', ""),
        (b"[]", ""),
        (b'[{"text": ""}, {"id": 3}, 4]', ""),
    ],
)
def test_a_faiss_memory_without_texts_is_carried_along(content: bytes, words: str, tmp_path: Path, base: Path) -> None:
    folder = tiny.bundle(tmp_path / "folder", **{"memory_faiss/meta.json": content})
    done = run("convert", folder, "--base", base, "-o", tmp_path / "one.gguf")
    if words:
        assert done.exit_code == 1 and words in done.output and len(done.output.splitlines()) == 1
        return
    assert done.exit_code == 0 and "carried along as it is; its records have no texts" in done.output
    assert set(BundleReader.open(tmp_path / "one.gguf").files) == {"memory/meta.json"}
