"""The decoder on the real demo model."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from ltm_edge.bundle import Bundle
from ltm_edge.engine.decoder import Decoder, Sampling
from ltm_edge.engine.model import LoadedModel
from ltm_edge.errors import ContextFull, EngineError, GrammarError, InputError, LtmError
from ltm_edge.machine import Memory

pytestmark = pytest.mark.needs_model

GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
GRAMMAR = r"""
root ::= "scene:\n  tension: \"" pole " vs " pole "\"\n"
pole ::= [a-z] [a-z ]{0,18} [a-z]
"""


@pytest.fixture
def decoder(demo_model: LoadedModel) -> Decoder:
    return Decoder(demo_model)


def prompt(model: LoadedModel, text: str = "Name two feelings that pull against each other."):
    return model.tokenize_segments(
        [("<|im_start|>user\n", True), (text, False), ("<|im_end|>\n<|im_start|>assistant\n", True)]
    )


def test_tokens_round_trip_in_any_script(demo_model):
    for text in ["plain", "  two  blanks\n", "Привет, мир", "日本語", "🌱🌿", "<|im_end|>", "e\u0301"]:
        tokens = demo_model.tokenize(text)
        assert tokens.dtype == np.int32
        assert demo_model.handle.detokenize(tokens).decode() == text


def test_control_tokens_are_read_only_where_meant(demo_model):
    meant = demo_model.tokenize("<|im_end|>", special=True)
    quoted = demo_model.tokenize("<|im_end|>")
    assert len(meant) == 1 and len(quoted) > 1
    assert "<|im_end|>" in demo_model.special_texts


def test_a_grammar_is_obeyed_and_the_text_streams_whole_characters(decoder, demo_model):
    pieces: list[str] = []
    done = decoder.write(
        prompt(demo_model), max_tokens=80, sampling=Sampling(seed=3), gbnf=GRAMMAR, on_text=pieces.append
    )
    assert done.complete and "".join(pieces) == done.text
    loaded = yaml.safe_load(done.text)
    assert " vs " in loaded["scene"]["tension"]


def test_streaming_never_splits_a_character(decoder, demo_model):
    emoji = "root ::= [\\U0001F331-\\U0001F33F]{12} [а-я]{12} [一-龥]{12}"
    pieces: list[str] = []
    done = decoder.write(
        prompt(demo_model), max_tokens=200, sampling=Sampling(seed=5), gbnf=emoji, on_text=pieces.append
    )
    assert done.complete and len(done.text) == 36
    assert "".join(pieces) == done.text and "\ufffd" not in done.text


def test_the_same_seed_gives_the_same_text(decoder, demo_model):
    texts = set()
    for seed in (1, 1, 2):
        decoder.clear()
        texts.add(decoder.write(prompt(demo_model), max_tokens=30, sampling=Sampling(seed=seed)).text)
    assert len(texts) == 2


def test_prefix_reuse_changes_nothing(decoder, demo_model):
    first = prompt(demo_model)
    cold = decoder.write(first, max_tokens=24, sampling=GREEDY)
    warm = decoder.write(first, max_tokens=24, sampling=GREEDY)
    assert cold.reused == 0 and warm.reused == len(first) - 1
    assert warm.text == cold.text


@pytest.mark.parametrize(
    "grammar",
    ['root ::= ("a"', "root ::= missing", "not a grammar", 'other ::= "a"', "root ::= root", 'root ::= "\\x"', "\0"],
)
@pytest.mark.parametrize("constraint", ["compiled", "llama"])
def test_a_bad_grammar_is_a_typed_error_and_the_decoder_lives_on(decoder, demo_model, grammar, constraint):
    with pytest.raises(GrammarError):
        decoder.write(prompt(demo_model), max_tokens=8, sampling=GREEDY, gbnf=grammar, constraint=constraint)
    assert decoder.write(prompt(demo_model), max_tokens=4, sampling=GREEDY).text


def test_a_prompt_that_does_not_fit_is_refused_with_numbers(decoder, demo_model):
    with pytest.raises(ContextFull, match=str(decoder.n_ctx)):
        decoder.write(np.full(decoder.n_ctx, 5, dtype=np.int32), max_tokens=1, sampling=GREEDY)
    assert decoder.write(prompt(demo_model), max_tokens=4, sampling=GREEDY).text


@pytest.mark.parametrize("tokens", [[], [-1], [10**8], [[1, 2]]])
def test_bad_tokens_are_refused(decoder, tokens):
    with pytest.raises(InputError):
        decoder.write(np.array(tokens, dtype=np.int32), max_tokens=4, sampling=GREEDY)


@pytest.mark.parametrize(
    "values", [{"temperature": -1.0}, {"top_p": 0.0}, {"min_p": 1.0}, {"repeat_penalty": 0.0}, {"top_k": -1}]
)
def test_sampling_out_of_range_is_refused(decoder, demo_model, values):
    with pytest.raises(InputError, match=next(iter(values))):
        decoder.write(prompt(demo_model), max_tokens=4, sampling=Sampling(**values))


def test_every_sampling_step_runs(decoder, demo_model):
    chain = Sampling(
        top_k=40, frequency_penalty=0.2, presence_penalty=0.2, dry_multiplier=0.8, repeat_last_n=-1, seed=9
    )
    assert decoder.write(prompt(demo_model), max_tokens=40, sampling=chain).text


def test_cancel_from_another_thread_keeps_what_there_is(decoder, demo_model):
    started = threading.Event()

    def stop() -> None:
        started.wait(300)
        decoder.cancel()

    thread = threading.Thread(target=stop)
    thread.start()
    done = decoder.write(
        prompt(demo_model, "Count to one thousand."),
        max_tokens=1000,
        sampling=GREEDY,
        on_text=lambda _: started.set(),
    )
    thread.join()
    assert done.stop == "cancelled" and 0 < len(done.tokens) < 1000
    assert decoder.write(prompt(demo_model), max_tokens=4, sampling=GREEDY).stop != "cancelled"


def test_cancel_inside_a_long_prefill(exact_model):
    """In float32: where the clock cuts decides which part of the next prompt was read in a batch of another size."""
    decoder = Decoder(exact_model)
    long = np.concatenate([prompt(exact_model)] * 60)[:1200]
    start = time.perf_counter()
    decoder.write(long[:200], max_tokens=1, sampling=GREEDY)
    part = time.perf_counter() - start
    for _ in range(20):  # the clock may miss the moment where other work comes between
        decoder.clear()
        timer = threading.Timer(2 * part, decoder.cancel)
        timer.start()
        done = decoder.write(long, max_tokens=8, sampling=GREEDY)
        timer.join()
        decoder.resume()
        if done.stop == "cancelled" and not done.tokens.size:
            break
    assert done.stop == "cancelled" and not done.tokens.size
    cold = Decoder(exact_model).write(prompt(exact_model), max_tokens=8, sampling=GREEDY)
    assert decoder.write(prompt(exact_model), max_tokens=8, sampling=GREEDY).text == cold.text


def test_an_exception_in_the_stream_comes_through_and_the_decoder_lives_on(decoder, demo_model):
    def fail(_: str) -> None:
        raise ValueError("reader gone")

    with pytest.raises(ValueError, match="reader gone"):
        decoder.write(prompt(demo_model), max_tokens=40, sampling=GREEDY, on_text=fail)
    assert decoder.write(prompt(demo_model), max_tokens=4, sampling=GREEDY).text


def test_a_second_thread_is_refused(decoder, demo_model):
    inside = threading.Event()
    leave = threading.Event()

    def hold(_: str) -> None:
        inside.set()
        leave.wait(300)

    worker = threading.Thread(
        target=lambda: decoder.write(prompt(demo_model), max_tokens=2, sampling=GREEDY, on_text=hold)
    )
    worker.start()
    assert inside.wait(300)
    try:
        with pytest.raises(EngineError, match="in use"):
            decoder.write(prompt(demo_model), max_tokens=2, sampling=GREEDY)
    finally:
        leave.set()
        worker.join()


def test_errors_share_one_base():
    assert issubclass(ContextFull, EngineError) and issubclass(EngineError, LtmError)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "order", ["ltm_edge.native.core(); import llama_cpp", "import llama_cpp; ltm_edge.native.core()"]
)
def test_one_libllama_is_mapped(order):
    """Whoever comes second finds the library that the first one loaded. In a process of its own, as imports last."""
    code = (
        f"import ltm_edge.native; {order}\n"
        "print(len({line.split()[-1] for line in open('/proc/self/maps') if 'libllama' in line}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1", done.stdout


def test_forcing_changes_a_greedy_document_only_where_the_plain_one_is_not_canonical(decoder, demo_model):
    """At temperature 0 the forced text is the same; what may differ is what follows a cut the tokenizer wouldn't make.

    Plain constrained decoding may write `"` and a line break as two tokens where the tokenizer has one; the model then
    reads another prefix, and may go on differently. Wherever the two documents part, the plain one must have done so.
    """
    for text in ("Name two feelings that pull against each other.", "Tea or coffee?", "I miss my grandmother."):
        plain = decoder.write(
            prompt(demo_model, text), max_tokens=90, sampling=GREEDY, gbnf=GRAMMAR, constraint="masks"
        )
        decoder.clear()
        forced = decoder.write(prompt(demo_model, text), max_tokens=90, sampling=GREEDY, gbnf=GRAMMAR)
        decoder.clear()
        assert plain.complete and forced.complete
        if plain.text == forced.text:
            continue
        common = next(i for i, (a, b) in enumerate(zip(plain.text, forced.text, strict=False)) if a != b)
        spelled = ""
        before: list[int] = []
        for token in plain.tokens.tolist():
            piece = bytes(demo_model.handle.piece(token, True)).decode()
            if len(spelled) + len(piece) > common:
                break
            spelled += piece
            before.append(token)
        assert before != demo_model.tokenize(spelled).tolist(), (plain.text, forced.text)


@pytest.mark.parametrize("max_tokens", [24, 30, 45, 80])
def test_a_document_lands_within_its_tokens(decoder, demo_model, max_tokens):
    """However few tokens there are, as long as they hold the shortest document, it ends complete."""
    for seed in range(4):
        done = decoder.write(prompt(demo_model), max_tokens=max_tokens, sampling=Sampling(seed=seed), gbnf=GRAMMAR)
        assert done.complete and len(done.tokens) <= max_tokens
        assert " vs " in yaml.safe_load(done.text)["scene"]["tension"]


def test_tokens_that_cannot_hold_the_shortest_document_are_refused_at_once(decoder, demo_model):
    with pytest.raises(GrammarError, match="max_tokens is 3"):
        decoder.write(prompt(demo_model), max_tokens=3, sampling=GREEDY, gbnf=GRAMMAR)


def test_masks_and_llama_cpp_write_the_same_when_greedy(decoder, demo_model):
    """The compiled grammar's masks against the oracle: the same document, token for token."""
    ours = decoder.write(prompt(demo_model), max_tokens=200, sampling=GREEDY, gbnf=GRAMMAR, constraint="masks")
    decoder.clear()
    theirs = decoder.write(prompt(demo_model), max_tokens=200, sampling=GREEDY, gbnf=GRAMMAR, constraint="llama")
    assert ours.complete and theirs.complete
    assert ours.tokens.tolist() == theirs.tokens.tolist()
    assert ours.resampled == 0 < theirs.resampled


def test_forced_tokens_are_the_tokenizer_s_own(decoder, demo_model):
    """The fixed text between the slots is cut as the tokenizer would cut the whole document."""
    done = decoder.write(prompt(demo_model), max_tokens=200, sampling=GREEDY, gbnf=GRAMMAR)
    assert done.forced > 0
    head = 'scene:\n  tension: "'
    canonical = demo_model.tokenize(done.text).tolist()
    spelled = ""
    for ours, theirs in zip(done.tokens.tolist(), canonical, strict=False):
        assert ours == theirs
        spelled += bytes(demo_model.handle.piece(ours, True)).decode()
        if len(spelled) >= len(head):
            break
    else:
        raise AssertionError(done.text)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from Linux's /proc")
def test_a_context_length_of_billions_in_the_file_reserves_no_memory(tmp_path):
    golden = Path(__file__).parents[1] / "golden" / "bundle-v1" / "golden-v1.gguf"
    raw = bytearray(golden.read_bytes())
    key = b"llama.context_length"
    at = raw.index(key) + len(key) + 4  # behind the key is the type, then the value
    raw[at : at + 4] = (2_000_000_000).to_bytes(4, "little")
    (tmp_path / "long.gguf").write_bytes(raw)
    code = (
        "import re, sys; from pathlib import Path\n"
        "from ltm_edge.bundle import _facts\n"
        "from ltm_edge.engine.decoder import Decoder, Sampling\n"
        "from ltm_edge.engine.model import LoadedModel\n"
        "from ltm_edge.engine.options import EngineOptions\n"
        "from gguf_tools.reader import read_gguf\n"
        "model = LoadedModel.load(Path(sys.argv[1]), EngineOptions(threads=1), *_facts(read_gguf(sys.argv[1])))\n"
        "import numpy as np\n"
        "sampling = Sampling(dry_multiplier=0.8, repeat_last_n=-1)\n"
        "Decoder(model).write(np.array([1, 9], dtype=np.int32), max_tokens=4, sampling=sampling)\n"
        # Not ru_maxrss: that is of the process that started it, too, where that was larger.
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "long.gguf")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    kibibytes = int(run.stdout)
    assert kibibytes < 1 << 20, run.stdout


def test_a_context_that_memory_cannot_hold_is_refused_and_not_tried(demo_path: Path, monkeypatch: pytest.MonkeyPatch):
    said = r"16777216 tokens take 386\.5 GB, .* available; take a ctx of \d+"
    with Bundle.open(demo_path, ctx=1 << 24, threads=1) as bundle, pytest.raises(EngineError, match=said):
        bundle.session()
    with Bundle.open(demo_path, ctx=10_240, threads=1) as bundle:
        needed = 10_240 * 30 * 2 * 3 * 64 * 2  # layers, keys and values, heads, width of each, bytes
        monkeypatch.setattr("ltm_edge.engine.decoder.memory", lambda: Memory(1 << 40, needed - 1))
        with pytest.raises(EngineError, match=r"10240 tokens take 0\.2 GB"):
            bundle.session()
        monkeypatch.setattr("ltm_edge.engine.decoder.memory", lambda: Memory(1 << 40, needed))
        bundle.session().close()
        monkeypatch.setattr("ltm_edge.engine.decoder.memory", lambda: None)
        bundle.session().close()
