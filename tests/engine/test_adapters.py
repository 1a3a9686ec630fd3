"""Adapters on the real demo model: what was computed under one mix is never read under another."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gguf
import numpy as np
import pytest

from ltm_edge.engine.decoder import AdapterMix, Decoder, Sampling
from ltm_edge.engine.model import LoadedModel
from ltm_edge.errors import InputError, ModelError

pytestmark = pytest.mark.needs_model


@pytest.fixture(scope="module")
def demo_model(exact_model: LoadedModel) -> LoadedModel:
    return exact_model


GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
# Log-probabilities differ by rounding with the shape of a batch and with the order of cells in the KV, here by up to
# 0.2, and by more for tokens that are unlikely; what a mix changes must be far more than that.
TOLERANCE = 1e-3  # of log-probabilities in float32; see exact_model
EFFECT = 1.0
RANK = 4


def number(model: LoadedModel, key: str) -> int:
    return int(model.metadata[f"{model.metadata['general.architecture']}.{key}"])


def write_lora(path: Path, model: LoadedModel, seed: int, architecture: str = "", width: int = 0) -> Path:
    """A random LoRA on the query projection of every second layer, strong enough to be seen in every token."""
    n_embd = width or number(model, "embedding_length")
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture or model.metadata["general.architecture"])
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    for layer in range(0, number(model, "block_count"), 2):
        name = f"blk.{layer}.attn_q.weight"
        writer.add_tensor(f"{name}.lora_a", rng.normal(0, 0.4, (RANK, n_embd)).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", rng.normal(0, 0.4, (n_embd, RANK)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def loras(demo_model: LoadedModel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    return [demo_model.load_adapter(write_lora(folder / f"{seed}.gguf", demo_model, seed)) for seed in (1, 2)]


def direction(model: LoadedModel, seed: int = 3):
    shape = (number(model, "block_count") - 1, number(model, "embedding_length"))
    return np.random.default_rng(seed).normal(0, 1.0, shape).astype(np.float32)


@pytest.fixture(params=["lora", "control", "both"])
def mixes(request, loras, demo_model) -> list[AdapterMix]:
    """Two mixes that differ."""
    if request.param == "lora":
        return [AdapterMix([(loras[0], 1.0)]), AdapterMix([(loras[1], 1.0)])]
    if request.param == "control":
        return [AdapterMix(control=direction(demo_model)), AdapterMix(control=direction(demo_model), control_scale=-1)]
    return [AdapterMix([(loras[0], 1.0)], direction(demo_model)), AdapterMix([(loras[0], 0.5), (loras[1], 0.5)])]


@pytest.fixture
def decoder(demo_model: LoadedModel) -> Decoder:
    return Decoder(demo_model)


def prompt(model: LoadedModel, text: str = "Name two feelings that pull against each other."):
    return model.tokenize_segments(
        [("<|im_start|>user\n", True), (text, False), ("<|im_end|>\n<|im_start|>assistant\n", True)]
    )


def read(decoder: Decoder, tokens, text, mix=None):
    return decoder.score([(tokens, [text])], adapters=mix)[0]


def fresh(decoder: Decoder, tokens, text, mix=None):
    decoder.clear()
    return read(decoder, tokens, text, mix).logprobs[0]


def test_a_mix_acts_and_its_end_leaves_nothing(decoder, demo_model, mixes):
    tokens, text = prompt(demo_model), demo_model.tokenize("Love and fear are")
    plain = fresh(decoder, tokens, text)
    changed = [fresh(decoder, tokens, text, mix) for mix in mixes]
    np.testing.assert_array_equal(fresh(decoder, tokens, text), plain)
    assert np.abs(changed[0] - plain).max() > EFFECT and np.abs(changed[1] - plain).max() > EFFECT
    assert np.abs(changed[0] - changed[1]).max() > EFFECT


def test_nothing_of_one_mix_is_read_under_another_in_turns(decoder, demo_model, mixes):
    """Twenty turns between two mixes and none: each finds its own cells, or the base's, never the other's."""
    tokens, text = prompt(demo_model), demo_model.tokenize("Love and fear")
    states = [*mixes, None]
    lone = Decoder(demo_model)
    # Under a mix the base's cells are used where there are any; here none are, as the mixes come first.
    # A prompt read whole and one of which only the last token is read differ by rounding: each has its like.
    expected = [(fresh(lone, tokens, text, mix), read(lone, tokens, text, mix).logprobs[0]) for mix in states]
    for turn in range(20):
        which = turn % 2 if turn < 16 else turn % 3
        scored = read(decoder, tokens, text, states[which])
        if turn < 2:
            assert scored.reused == 0  # what the other one left is there, and is not taken
        if turn < 16:
            np.testing.assert_allclose(scored.logprobs[0], expected[which][turn >= 2], atol=TOLERANCE)
        assert scored.reused + scored.prefilled == len(tokens)
        if turn >= 2 and which < 2:
            assert scored.reused == len(tokens) - 1
    # The base never takes a mix's cells.
    np.testing.assert_allclose(read(decoder, tokens, text).logprobs[0], expected[2][1], atol=TOLERANCE)


def test_a_draft_under_a_mix_is_read_again_under_the_base(decoder, demo_model, mixes):
    tokens = prompt(demo_model)
    decoder.commit(tokens)
    draft = decoder.write(tokens, max_tokens=10, sampling=GREEDY, adapters=mixes[0])
    assert draft.reused == len(tokens) - 1  # the base's prefix is the mix's too
    text = np.concatenate([tokens, draft.tokens])
    done = decoder.commit(text)
    assert done.reused == len(tokens) and done.prefilled == len(draft.tokens)
    probe = demo_model.tokenize(" and then")
    warm = read(decoder, text, probe)
    np.testing.assert_allclose(warm.logprobs[0], fresh(Decoder(demo_model), text, probe), atol=TOLERANCE)
    other = read(decoder, np.concatenate([text, probe]), probe, mixes[1])
    assert other.reused == len(text)  # all of the base's, none of the first mix's


def test_another_base_makes_old_cells_unusable(decoder, demo_model, mixes):
    tokens, text = prompt(demo_model), demo_model.tokenize("Love and fear")
    decoder.commit(tokens)
    decoder.set_base(mixes[0])
    done = decoder.commit(tokens)
    assert done.reused == 0 and done.prefilled == len(tokens)
    lone = Decoder(demo_model)
    np.testing.assert_allclose(
        read(decoder, tokens, text).logprobs[0], fresh(lone, tokens, text, mixes[0]), atol=TOLERANCE
    )
    decoder.set_base(AdapterMix())
    assert decoder.commit(tokens).reused in (0, len(tokens))
    np.testing.assert_allclose(read(decoder, tokens, text).logprobs[0], fresh(lone, tokens, text), atol=TOLERANCE)


def test_adapters_are_set_on_change_only(decoder, demo_model, mixes):
    tokens, text = prompt(demo_model), demo_model.tokenize("Love")
    for _ in range(3):
        read(decoder, tokens, text, mixes[0])
    assert decoder.stats["adapter_changes"] == 1
    read(decoder, tokens, text)
    assert decoder.stats["adapter_changes"] == 2


def test_equal_mixes_are_one_state(decoder, demo_model, loras):
    tokens, text = prompt(demo_model), demo_model.tokenize("Love")
    one = AdapterMix([(loras[0], 0.5), (loras[1], 0.25)], direction(demo_model))
    same = AdapterMix([(loras[1], 0.2501), (loras[0], 0.5)], direction(demo_model).copy())
    assert one == same
    assert AdapterMix([(loras[0], 0.0)]) == AdapterMix() == AdapterMix(control=direction(demo_model), control_scale=0)
    assert one != AdapterMix([(loras[0], 0.5)]) and one != AdapterMix([(loras[0], 0.5), (loras[1], 0.25)])
    assert AdapterMix(control=direction(demo_model, 1)) != AdapterMix(control=direction(demo_model, 2))
    read(decoder, tokens, text, one)
    assert read(decoder, tokens, text, same).reused == len(tokens) - 1
    assert decoder.stats["adapter_changes"] == 1


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -float("inf"), 64.5, -1e30])
def test_scales_out_of_range_are_refused(demo_model, loras, scale):
    with pytest.raises(InputError, match="scale"):
        AdapterMix([(loras[0], scale)])
    with pytest.raises(InputError, match="scale"):
        AdapterMix(control=direction(demo_model), control_scale=scale)


def test_bad_parts_are_refused_and_the_decoder_lives_on(decoder, demo_model, loras):
    tokens, text = prompt(demo_model), demo_model.tokenize("Love and")
    plain = fresh(decoder, tokens, text)
    with pytest.raises(InputError, match="twice"):
        AdapterMix([(loras[0], 1.0), (loras[0], 0.5)])
    with pytest.raises(InputError, match="finite"):
        AdapterMix(control=np.full_like(direction(demo_model), np.nan))
    with pytest.raises(InputError, match="control vector"):
        AdapterMix(control=direction(demo_model)[0])
    for wrong in (direction(demo_model)[:, :-1], direction(demo_model)[:-1], direction(demo_model)[:0]):
        mix = AdapterMix([(loras[0], 1.0)], wrong)
        for _ in range(2):
            with pytest.raises(InputError, match="control vector"):
                read(decoder, tokens, text, mix)
        np.testing.assert_array_equal(fresh(decoder, tokens, text), plain)
    assert decoder.stats["leased"] == 0


def test_files_that_are_no_adapter_of_this_model_are_refused(demo_model, demo_path, tmp_path):
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"GGUF" + bytes(range(200)))
    whole = write_lora(tmp_path / "whole.gguf", demo_model, 1).read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    for path in (
        tmp_path / "missing.gguf",
        garbage,
        cut,
        demo_path,  # a model, not an adapter
        write_lora(tmp_path / "other.gguf", demo_model, 1, architecture="gemma"),
        write_lora(tmp_path / "narrow.gguf", demo_model, 1, width=64),
    ):
        with pytest.raises(ModelError, match=path.name.split(".")[0]):
            demo_model.load_adapter(path)
    assert dataclasses.is_dataclass(demo_model) and demo_model.load_adapter(tmp_path / "whole.gguf")
