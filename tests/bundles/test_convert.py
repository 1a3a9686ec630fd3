"""Converting folders: all problems at once, nothing half-written, the same bytes, and files that others can run."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_tools import errors
from gguf_tools.__main__ import main
from gguf_tools.bundle_converter import BundleConverter, Options
from gguf_tools.bundle_reader import BundleReader
from gguf_tools.extract import extract
from gguf_tools.reader import read_gguf
from gguf_tools.sidecar import sidecar_folder
from gguf_tools.verify import verify

from . import tiny
from .conftest import TOKENS, Convert
from .refused_folders import REFUSED, with_lora


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.write(tiny.make("llama"), tmp_path / "base.gguf")


def problems(folder: Path, base: Path, target: Path, **options: Any) -> list[str]:
    before = sorted(target.parent.iterdir())
    with pytest.raises(errors.ManyProblems) as caught:
        BundleConverter(folder, base, target, Options(**options)).run()
    assert sorted(target.parent.iterdir()) == before  # nothing was left behind
    assert all(line.isprintable() for line in caught.value.problems)
    return list(caught.value.problems)


def as_the_sources_list_it(folder: Path) -> Path:
    """`ltm-vortex-1B/` with every file of the listing, in the spelling there."""
    template = (
        "version: 1\nname: {}\nabout: x\nphases: [myth]\narchetypes: [pilgrim]\nfields:\n"
        "  response: {{kind: block, min_lines: 1, max_lines: 3, max_chars: 100}}\n"
    )
    tiny.bundle(
        folder,
        **{
            "config.json": {"hidden_size": 64, "num_hidden_layers": 2, "lora": {"lora_alpha": 8}},
            "tokenizer.model": b"\x0a\x0bsentencepiece",
            "scene_templates/initiation.yaml": template.format("initiation").encode(),
            "scene_templates/reversal.yaml": template.format("reversal").encode(),
            "field_architecture.yaml": b"field:\n  version: 1\n  zones: {will: {kind: will}}\n",
            "curriculum.yaml": b"curriculum:\n  version: 1\n  phases: [{phase: myth}]\n  data: [a.jsonl]\n",
            "integration_log.json": {"format": "ltm-integration-log", "version": 1, "entries": []},
            "memory_faiss/scene_embeddings.index": b"IxFI-a-faiss-index",
            "memory_faiss/meta.json": [{"tension": "a vs b"}],
        },
    )
    tiny.safetensors(folder / "model_lora.safetensors", tiny.lora(tiny.make("llama")))
    return folder


def test_the_folder_that_the_sources_list(tmp_path: Path, base: Path, convert: Convert) -> None:
    folder = as_the_sources_list_it(tmp_path / "ltm-vortex-1B")
    converter = convert(folder, base)
    reader = BundleReader.open(converter.target)
    assert set(reader.files) == {"integration_log.json", "memory/meta.json", "memory/scene_embeddings.index"}
    assert reader.file("memory/scene_embeddings.index").read_bytes() == b"IxFI-a-faiss-index"
    assert "scene_templates/initiation.yaml" in reader.documents and "curriculum.yaml" in reader.documents
    assert reader.entries["ltm.lora.scale"] == "1.0" and len(reader.entries["ltm.lora.sha256"]) == 64
    assert verify(converter.target).problems == ()
    assert np.abs(tiny.logits(converter.target, TOKENS) - tiny.logits(base, TOKENS)).max() > 1


def test_convert_extract_convert_gives_the_same_bytes(tmp_path: Path, base: Path, convert: Convert) -> None:
    first = convert(as_the_sources_list_it(tmp_path / "ltm-vortex-1B"), base, "first.gguf").target
    again = convert(tmp_path / "ltm-vortex-1B", base, "again.gguf").target
    assert first.read_bytes() == again.read_bytes()
    names = extract(first, tmp_path / "folder")
    assert {"curriculum.yaml", "memory/meta.json", "scene_templates/reversal.yaml"} < set(names)
    second = convert(tmp_path / "folder", first, "second.gguf").target
    assert second.read_bytes() == first.read_bytes()
    one, two = sidecar_folder(first), sidecar_folder(second)
    assert {p.name: p.read_bytes() for p in one.rglob("*.*")} == {p.name: p.read_bytes() for p in two.rglob("*.*")}
    with pytest.raises(errors.OutputExists):
        extract(first, tmp_path / "folder")


def test_base_metadata_is_kept(tmp_path: Path, base: Path, convert: Convert) -> None:
    target = convert(with_lora(tmp_path / "folder"), base).target
    before, after = read_gguf(base), read_gguf(target)
    assert list(after.fields)[: len(before.fields)] == list(before.fields)
    for key, field in before.fields.items():
        raw = [info.stamp.read(f.offset, f.nbytes) for info, f in ((before, field), (after, after.fields[key]))]
        assert raw[0] == raw[1], key
    added = list(after.fields)[len(before.fields) :]
    assert added == sorted(added) and all(key.startswith("ltm.") for key in added)
    assert all(isinstance(after.fields[key].value, str) for key in added)


def test_every_problem_is_told_at_once(tmp_path: Path, base: Path) -> None:
    folder = with_lora(tmp_path / "folder", lora_alpha=0)
    (folder / "ltm_overlay_config.yaml").write_text("ltm_overlay: {version: 1}\n")
    (folder / "prompts.yaml").write_bytes(b"\xff")
    (folder / "curriculum.yaml").write_text("a: [")
    (folder / "ltm_curriculum.yaml").write_text("a: 1")
    (folder / "integration_log.json").write_text("{")
    (folder / "scene_templates").mkdir()
    (folder / "scene_templates" / "a.yaml").write_text("name: ../b")
    (folder / "scene_templates" / "b.yaml").mkdir()
    (folder / "config.json").write_text('{"hidden_size": 65, "base_sha256": "x"}')
    found = problems(folder, base, tmp_path / "out.gguf", outtype="Q9")
    for words in (
        "--outtype Q9",
        "the bundle's name is missing",
        "prompts.yaml: isn't UTF-8",
        "curriculum.yaml and ltm_curriculum.yaml: two names",
        "isn't YAML",
        "integration_log.json: isn't JSON",
        "scene_templates/a.yaml: name:",
        "scene_templates/b.yaml: is a folder",
        "hidden_size is 65, the base has 64",
        "base_sha256 is x",
        "'lora_alpha' is 0",
    ):
        assert any(words in line for line in found), words
    assert len(found) >= 11


@pytest.mark.parametrize("name", ["mistral-7b-hf", "my model (2)"])
def test_hugging_face_folder_as_base_gets_the_command(name: str, tmp_path: Path) -> None:
    hf = tmp_path / name
    hf.mkdir()
    (hf / "config.json").write_text("{}")
    (hf / "model.safetensors").write_bytes(b"")
    quoted, out = shlex.quote(str(hf)), shlex.quote(f"{name}.gguf")
    for path in (hf, hf / "model.safetensors", hf / "config.json"):
        (found,) = problems(tiny.bundle(tmp_path / "folder"), path, tmp_path / "out.gguf")
        assert found.endswith(f": python convert_hf_to_gguf.py {quoted} --outfile {out} --outtype bf16")


@pytest.mark.parametrize("name", REFUSED)
def test_refused_folders(name: str, tmp_path: Path, base: Path) -> None:
    make, words = REFUSED[name]
    make(tmp_path / "folder")
    found = problems(tmp_path / "folder", base, tmp_path / "out.gguf")
    assert any(words in line for line in found), found
    assert all(len(line) < 2500 for line in found)


def test_numbers_of_the_base_that_are_none_are_the_bases_fault(tmp_path: Path) -> None:
    model = tiny.make("llama")
    model.weights["model.layers.0.self_attn.q_proj.weight"][0, 0] = np.nan
    base = tiny.write(model, tmp_path / "base.gguf")
    with pytest.raises(errors.BadSource, match=r"base\.gguf: tensor 'blk\.0\.attn_q\.weight' holds NaN"):
        BundleConverter(with_lora(tmp_path / "folder"), base, tmp_path / "out.gguf").run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.gguf", "folder"]


@pytest.mark.filterwarnings("error")
def test_a_sum_that_overflows_is_told_once(tmp_path: Path, base: Path) -> None:
    lora = {k: v * np.float32(1e30) if "q_proj" in k else v for k, v in tiny.lora(tiny.make("llama")).items()}
    with pytest.raises(errors.BadLora, match=r"'blk\.0\.attn_q\.weight' gets numbers that F32 can't hold"):
        BundleConverter(with_lora(tmp_path / "folder", lora), base, tmp_path / "out.gguf").run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.gguf", "folder"]


def test_patterns_as_peft_reads_them(tmp_path: Path, base: Path) -> None:
    """Names, ends of names, and the regular expressions that people use."""
    from gguf_tools.lora_peft import read_peft

    patterns = {
        "q_proj": 2,
        "^model.layers.0.mlp.up_proj": 4,
        r"layers\.[01]\.self_attn\.(k|v)_proj": 16,
        r".*\.1\.mlp\..*": 32,
    }
    folder = with_lora(tmp_path / "folder", alpha_pattern=patterns)
    scales = {name: delta.scale for name, delta in read_peft(folder, read_gguf(base)).deltas.items()}
    assert scales["blk.1.attn_q.weight"] == 0.5 and scales["blk.0.ffn_up.weight"] == 1
    assert scales["blk.0.attn_v.weight"] == 4 and scales["blk.1.ffn_down.weight"] == 8
    assert scales["blk.0.ffn_down.weight"] == 2


@pytest.mark.parametrize("what", ["embed_tokens", "lm_head"])
def test_half_of_tied_embeddings_is_refused(what: str, tmp_path: Path) -> None:
    model = tiny.make("llama", tied=True)
    base = tiny.write(model, tmp_path / "base.gguf")
    name = f"base_model.model.{'model.' if what == 'embed_tokens' else ''}{what}.weight"
    found = problems(with_lora(tmp_path / "f", {name: np.ones((96, 64), "f4")}), base, tmp_path / "out.gguf")
    words = "uses as its output too" if what == "embed_tokens" else "uses its token embeddings as the output"
    assert words in found[0]


def test_output_problems(tmp_path: Path, base: Path) -> None:
    folder = tiny.bundle(tmp_path / "folder")
    assert "is there already" in problems(folder, base, base)[0]
    assert "is the base itself" in problems(folder, base, base, force=True)[0]
    assert "folder: is a folder; name the file" in problems(tmp_path / "folder", base, folder, force=True)[0]
    with pytest.raises(errors.ManyProblems, match="there is no folder"):
        BundleConverter(folder, base, tmp_path / "no" / "x.gguf").run()


def test_full_disk_half_way_leaves_nothing(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gguf_tools import writer

    real, written = writer.GgufWriter._write, [0]

    def full(self: Any, data: Any) -> None:
        written[0] += memoryview(data).nbytes
        if written[0] > 40_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, data)

    monkeypatch.setattr(writer.GgufWriter, "_write", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(errors.DiskFull, match=r"out\.gguf: can't be written: No space left on device; free some"):
        BundleConverter(as_the_sources_list_it(tmp_path / "x"), base, tmp_path / "out.gguf").run()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*(p.name for p in before), "x"])


def test_a_disk_that_is_too_small_is_refused_before_a_tensor_is_written(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gguf_tools import files

    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(errors.DiskFull, match=r"needs 296\.2 kB, 1\.0 kB are free"):
        BundleConverter(as_the_sources_list_it(tmp_path / "x"), base, tmp_path / "out.gguf").run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.gguf", "x"]


# The command, which waits for its signal in the middle of writing.
HALF_WAY = """
import sys, time
from gguf_tools import __main__, converter

def hold(self, what, done, total):
    if what == "writing" and 2 * done > total:
        print("half way", flush=True)
        time.sleep(600)

converter.Converter.tell = hold
sys.exit(__main__.main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupted_half_way_leaves_nothing(name: str, tmp_path: Path, base: Path) -> None:
    import signal

    folder = tiny.bundle(tmp_path / "folder")
    arguments = ["convert", str(folder), "--base", str(base), "-o", str(tmp_path / "out.gguf")]
    process = subprocess.Popen(
        [sys.executable, "-c", HALF_WAY, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "half way\n"
    assert any(p.stat().st_size > base.stat().st_size // 4 for p in tmp_path.glob(".out.gguf.*"))
    process.send_signal(getattr(signal, name))
    _, said = process.communicate()
    assert process.returncode == 130 and "nothing was left behind" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.gguf", "folder"]


@pytest.mark.needs_model
def test_others_can_run_the_file(tmp_path: Path, demo_path: Path, convert: Convert) -> None:
    """Plain llama-cpp-python loads it as any model, the gguf package reads it, licence and chat template are there."""
    import gguf
    import llama_cpp

    target = convert(tiny.bundle(tmp_path / "folder"), demo_path).target
    llm = llama_cpp.Llama(str(target), n_ctx=128, n_threads=2, verbose=False, seed=1)
    answer = llm.create_chat_completion([{"role": "user", "content": "Say hello."}], max_tokens=8, temperature=0)
    assert answer["choices"][0]["message"]["content"].strip()
    assert llm.metadata["ltm.name"] == "tiny" and llm.metadata["general.license"] == "apache-2.0"
    assert "messages" in llm.metadata["tokenizer.chat_template"]
    llm.close()
    reader = gguf.GGUFReader(target)
    assert len(reader.tensors) == 272 and "ltm.overlay" in reader.fields


@pytest.mark.needs_model
def test_quantised_base_keeps_its_perplexity(tmp_path: Path, demo_path: Path, convert: Convert) -> None:
    """A weak LoRA merged into 4-bit weights against the same applied to them in float32: rounding costs a little."""
    from gguf_tools.measure import TEXT, perplexity

    shape = {"width": 576, "heads": 9, "kv_heads": 3, "size": 64, "inner": 1536, "layers": 30}
    demo = tiny.Tiny("llama", **shape)
    lora = {k: v for k, v in tiny.lora(demo, strength=0.004).items() if ".layers.1" in k}
    folder = with_lora(tmp_path / "folder", lora)
    merged = perplexity(convert(folder, demo_path, "q.gguf").target, TEXT[:700])
    exact = perplexity(convert(folder, demo_path, "f.gguf", outtype="F32").target, TEXT[:700])
    print(f"perplexity: merged {merged:.2f}, merged in float32 {exact:.2f}")
    assert abs(merged / exact - 1) < 0.05


def test_command_line(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = as_the_sources_list_it(tmp_path / "folder")
    out = str(tmp_path / "out.gguf")
    assert main(["convert", str(folder), "--base", str(base), "-o", out]) == 0
    assert "14 were changed" in capsys.readouterr().out
    assert main(["convert", str(folder), "--base", str(base), "-o", out]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["verify", out]) == 0
    assert main(["extract", out, "-o", str(tmp_path / "again")]) == 0
    capsys.readouterr()
    assert (
        main(["set-meta", out, "general.name=Новое", "ltm.name=other", "--remove", "general.license", "--force"]) == 0
    )
    info = read_gguf(out)
    assert (info.text("general.name"), info.text("ltm.name")) == ("Новое", "other")
    assert "general.license" not in info.fields and verify(out).problems == ()
    wrong = [
        "llama.block_count=x",
        "llama.rope.freq_base=nan",
        "ltm.sidecar.sha256=0",
        "general.alignment=64",
        "tokenizer.ggml.tokens=a",
        "ключ=1",
    ]
    assert main(["set-meta", out, *wrong, "--remove", "none", "--force"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 7
    assert main(["set-meta", out, "ltm.format_version=9", "--force"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {out}: has bundle format version 9")
    assert verify(out).problems == ()
    (tmp_path / "text.yaml").write_text("ltm_overlay: {version: 1, name: third}")
    changed = str(tmp_path / "third.gguf")
    assert main(["set-meta", out, f"ltm.overlay=@{tmp_path / 'text.yaml'}", "-o", changed]) == 0
    assert BundleReader.open(changed).files.keys() == BundleReader.open(out).files.keys()


def test_format_version_and_limits_of_what_is_written(tmp_path: Path, base: Path, convert: Convert) -> None:
    entries = BundleReader.open(convert(tiny.bundle(tmp_path / "folder"), base).target).entries
    assert entries["ltm.format_version"] == "1" and entries["ltm.base.name"] == "tiny llama"
    assert json.dumps(dict(entries))


Figures = dict[str, Any]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Figures:
    """What is measured of each type of attn_q, to be filled in; `asked` has the passages that were given."""
    from gguf_tools import choose_type
    from gguf_tools.measure import Measured

    found: Figures = {"asked": []}

    def measured(path: Path, *, passages: Any, patience: float, **_: Any) -> Measured:
        found["asked"].append(tuple(passages))
        one: Measured = found[next(t.type.name for t in read_gguf(path).tensors if t.name.endswith("attn_q.weight"))]
        return one

    monkeypatch.setattr(choose_type, "measure", measured)
    return found


def test_type_is_chosen_by_what_was_measured(tmp_path: Path, base: Path, figures: Figures) -> None:
    """The fastest within the tolerance, however fast the others are; the trials leave nothing behind."""
    from gguf_tools.choose_type import choose_type
    from gguf_tools.measure import Measured

    figures |= {"F32": Measured(10.0, None, 100.0, 10.0), "Q8_0": Measured(10.1, None, 300.0, 20.0)}
    figures["Q4_0"] = Measured(12.0, None, 900.0, 90.0)
    folder = tiny.bundle(tmp_path / "folder")
    choice = choose_type(folder, base, Options(), passages=lambda: pytest.fail("no LoRA"), candidates=("Q8_0", "Q4_0"))
    assert choice.lines() == [
        "same: perplexity 10.00, prefill 100 tok/s, decode 10 tok/s; what the others are compared with; a turn takes "
        "13.00 s",
        "Q8_0: perplexity 10.10 (+1.0%), prefill 300 tok/s, decode 20 tok/s; a turn takes 6.00 s",
        "Q4_0: perplexity 12.00 (+20.0%), prefill 900 tok/s, decode 90 tok/s; left out: over 2% above same",
        "chosen: Q8_0, the fastest of those that fit",
    ]
    figures["F32"] = Measured(10.0, None, None, None)  # too busy
    choice = choose_type(folder, base, Options(), candidates=("Q8_0",))
    assert choice.outtype == "same" and choice.lines()[-1].startswith("kept the base's types: this machine is too busy")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.gguf", "folder"]


def test_a_type_that_rounds_the_lora_away_is_not_chosen(tmp_path: Path, figures: Figures) -> None:
    """With a LoRA the measure is its merge in float16, and the text one that it was made for."""
    from gguf_tools.choose_type import choose_type
    from gguf_tools.measure import Measured, Passage

    model = tiny.make("llama")
    base = tiny.write(model, tmp_path / "base.gguf", kind="Q4_1")
    folder = with_lora(tmp_path / "folder", tiny.lora(model))
    figures |= {"F16": Measured(10.0, 5.0, 90.0, 9.0), "Q8_0": Measured(10.0, 5.0, 300.0, 20.0)}
    figures |= {"Q4_1": Measured(9.0, 8.0, 500.0, 50.0), "Q4_0": Measured(10.1, 5.3, 900.0, 90.0)}
    words = [Passage((1, 2, 3), 1)]
    choice = choose_type(folder, base, Options(), passages=lambda: words, candidates=("Q8_0", "Q4_0"))
    assert figures["asked"] == [tuple(words)] * 4
    assert (choice.outtype, choice.reference, list(choice.measured)) == ("Q8_0", "F16", ["same", "F16", "Q8_0", "Q4_0"])
    assert choice.lines()[0] == (
        "same: perplexity 9.00 (-10.0%), of the bundle's own words 8.00 (+60.0%), prefill 500 tok/s, decode 50 tok/s; "
        "left out: over 2% above F16"
    )
    figures["Q8_0"] = Measured(10.0, 5.2, 300.0, 20.0)  # nothing else keeps it
    assert choose_type(folder, base, Options(), candidates=("Q8_0", "Q4_0")).outtype == "F16"
    figures["Q4_1"] = Measured(9.0, None, None, None)  # too busy
    choice = choose_type(folder, base, Options(), candidates=("Q8_0",))
    assert choice.outtype == "Q8_0" and choice.lines()[-1].startswith("took Q8_0, which keeps a LoRA: this machine is")
    # A scale of 0 merges nothing: the base's types are the measure again.
    figures["Q4_1"] = Measured(9.0, None, 500.0, 50.0)
    choice = choose_type(folder, base, Options(lora_scale=0.0), passages=lambda: words, candidates=("Q8_0",))
    assert choice.reference == "same" and figures["asked"][-1] == ()


@pytest.mark.needs_model
def test_the_example_s_lora_survives_auto(tmp_path: Path, demo_path: Path) -> None:
    """The real thing: merged into the base's own 4-bit type, the example's LoRA is nearly gone."""
    from gguf_tools.choose_type import choose_type
    from ltm_edge.bundle import Bundle
    from ltm_edge.overlay_set import load_overlay
    from ltm_edge.training.own_words import own_words

    folder = Path(__file__).parents[2] / "bundles/ltm-vortex-135m"
    with Bundle.open(demo_path, ctx=256, gpu_layers=0) as bundle:
        words = own_words(folder, load_overlay(folder), bundle.model, 2)
    choice = choose_type(folder, demo_path, Options(), passages=lambda: words, candidates=("Q8_0",), threads=2)
    print(*choice.lines(), sep="\n")
    assert choice.outtype != "same"
    if len(choice.measured) > 1:  # else this machine is too busy to measure more
        assert choice.fits("Q8_0") and not choice.fits("same")


def test_a_model_that_ends_llama_cpp_doesn_t_end_the_conversion(tmp_path: Path, base: Path) -> None:
    """The tiny model's vocabulary has no bytes: llama.cpp throws where it turns a line break into tokens."""
    from gguf_tools import choose_type

    with pytest.raises(errors.GgufError, match=r"base\.gguf: as same: ends llama\.cpp where it is run"):
        choose_type.choose_type(tiny.bundle(tmp_path / "folder"), base, Options())


def test_in_a_packed_app_the_type_has_to_be_named(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sys.executable` is the app there: to measure in a process of its own would start the app again."""
    from gguf_tools import choose_type

    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(
        errors.GgufError, match=r"base\.gguf: as same: can't be measured inside a packed app.*name a type"
    ):
        choose_type.choose_type(tiny.bundle(tmp_path / "folder"), base, Options())
