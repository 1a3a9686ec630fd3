"""Hyperparameters that would end the process that loads them are refused by the header."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gguf_tools.errors import Unloadable
from gguf_tools.loadable import check_loadable
from gguf_tools.reader import read_gguf
from gguf_tools.types import ValueType

from .gguf_bytes import Gguf, array, chat_model, scalar, string, strings, u32

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-v1" / "golden-v1.gguf"


def eps(value: float) -> bytes:
    return scalar("llama.attention.layer_norm_rms_epsilon", ValueType.FLOAT32, value)


def experts(count: int, used: int, groups: int = 0, in_use: int = 0) -> Gguf:
    names = ("expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count")
    values = zip(names, (count, used, groups, in_use), strict=True)
    return chat_model([u32(f"llama.{name}", value) for name, value in values])


def layers(count: int) -> Gguf:
    return chat_model([u32("llama.block_count", count)])


def vocabulary(kind: str, *types: int) -> Gguf:
    numbers = b"".join(value.to_bytes(4, "little") for value in types)
    listed = array("tokenizer.ggml.token_type", ValueType.INT32, len(types), numbers)
    model = chat_model([listed])
    entries = [entry for entry in model.entries if b"tokenizer.ggml.model" not in entry]
    return Gguf([*entries, string("tokenizer.ggml.model", kind)], model.tensors, model.data)


def words(*texts: str) -> Gguf:
    model = chat_model()
    entries = [entry for entry in model.entries if b"tokenizer.ggml.tokens" not in entry]
    return Gguf([*entries, strings("tokenizer.ggml.tokens", texts)], model.tensors, model.data)


REFUSED = {
    "no layers": (layers(0), "'llama.block_count' is 0; 1 to 512"),
    "too many layers": (layers(513), "is 513; 1 to 512 layers"),
    "layers by the billion": (layers(2**32 - 1), "is 4294967295; 1 to 512"),
    "more layers ahead than layers": (
        chat_model([u32("llama.block_count", 2), u32("llama.nextn_predict_layers", 3)]),
        "'llama.nextn_predict_layers' is 3; the model has 2 layers",
    ),
    "too many experts": (experts(1025, 2), "'llama.expert_count' is 1025"),
    "more experts used than there are": (experts(4, 5), "'llama.expert_used_count' is 5; the model has 4 experts"),
    "no expert used": (experts(4, 0), "'llama.expert_used_count' is 0; the model has 4"),
    "experts used of none": (experts(0, 2), "'llama.expert_used_count' is 2; the model has 0"),
    "groups that don't divide": (experts(8, 2, 3, 1), "'llama.expert_group_count' is 3; 8 experts"),
    "no group used": (experts(8, 2, 4, 0), "'llama.expert_group_used_count' is 0; the model has 4 groups"),
    "negative epsilon": (chat_model([eps(-1.0)]), "layer_norm_rms_epsilon' is -1; it must be"),
    "epsilon no number": (chat_model([eps(float("nan"))]), "layer_norm_rms_epsilon' is nan"),
    "infinite epsilon": (chat_model([eps(float("inf"))]), "layer_norm_rms_epsilon' is inf"),
    "unknown rope scaling": (chat_model([string("llama.rope.scaling.type", "su")]), "is 'su'; known are none, linear"),
    "no vocabulary": (vocabulary("no_vocab"), "'tokenizer.ggml.model' is 'no_vocab'; without a vocabulary"),
    "bytes where there are none": (
        vocabulary("bert", 1, 6),
        "token_type' has single bytes; a vocabulary of type 'bert'",
    ),
    "a token twice": (words("a", "b", "a"), "'tokenizer.ggml.tokens' has 'a' again as token 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_dies_of_is_refused(tmp_path: Path, case: str) -> None:
    model, message = REFUSED[case]
    info = read_gguf(model.write(tmp_path / "m.gguf"))
    with pytest.raises(Unloadable) as caught:
        check_loadable(info)
    assert message in str(caught.value) and str(caught.value).isprintable()


TAKEN = [
    chat_model(),
    layers(1),
    layers(512),
    experts(8, 2, 4, 2),
    experts(8, 8, 1),
    chat_model([eps(0.0)]),
    words("a", "", "", "b"),
    vocabulary("llama", 1, 6),
    vocabulary("bert", 1, 3),
    chat_model([string("llama.rope.scaling.type", "longrope")]),
]


@pytest.mark.parametrize("model", TAKEN)
def test_what_it_takes_is_taken(tmp_path: Path, model: Gguf) -> None:
    check_loadable(read_gguf(model.write(tmp_path / "m.gguf")))


@pytest.mark.parametrize(("key", "value"), [("block_count", 0), ("block_count", 513)])
def test_llama_does_die_of_it(tmp_path: Path, key: str, value: int) -> None:
    raw = bytearray(GOLDEN.read_bytes())
    name = f"llama.{key}".encode()
    at = raw.index(name) + len(name) + 4  # behind the key is the type, then the value
    raw[at : at + 4] = value.to_bytes(4, "little")
    (tmp_path / "m.gguf").write_bytes(raw)
    code = (
        "import sys; from ltm_edge.native import core\n"
        "options = core().ModelOptions(); options.path = sys.argv[1]; core().Model.load(options)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.gguf")],
        capture_output=True,
        env={"GGML_NO_BACKTRACE": "1", "PATH": ""},
        check=False,
    )
    assert run.returncode not in (0, 1), run.stderr
    with pytest.raises(Unloadable):
        check_loadable(read_gguf(tmp_path / "m.gguf"))
