"""Models whose cache can't be cut or moved as attention's can: recurrent (Mamba) and sliding-window (Gemma 3).

Tiny random models in float32, so that what is reused shows: every answer must be that of a decoder that is new.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from ltm_edge.bundle import Bundle
from ltm_edge.engine.decoder import Decoder, Order, Sampling
from ltm_edge.engine.model import LoadedModel

GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
WIDTH, INNER, STATE, RANK, CONV = 64, 128, 8, 4, 4
HEADS, KV_HEADS, SIZE, HIDDEN = 4, 2, 16, 96
WINDOW, CONTEXT, VOCABULARY, LAYERS = 16, 256, 128, 6

Weights = dict[str, np.ndarray]


def matrix(dice: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return (dice.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)


def norm(dice: np.random.Generator, length: int) -> np.ndarray:
    return (1 + 0.1 * dice.standard_normal(length)).astype(np.float32)


def mamba(writer: gguf.GGUFWriter, dice: np.random.Generator) -> Weights:
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(CONV)
    writer.add_ssm_inner_size(INNER)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(RANK)
    weights: Weights = {"output.weight": matrix(dice, VOCABULARY, WIDTH) * 3}
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        weights |= {
            f"{at}attn_norm.weight": norm(dice, WIDTH),
            f"{at}ssm_in.weight": matrix(dice, 2 * INNER, WIDTH),
            f"{at}ssm_conv1d.weight": matrix(dice, INNER, CONV),
            f"{at}ssm_conv1d.bias": norm(dice, INNER) - 1,
            f"{at}ssm_x.weight": matrix(dice, RANK + 2 * STATE, INNER),
            f"{at}ssm_dt.weight": matrix(dice, INNER, RANK),
            f"{at}ssm_dt.bias": norm(dice, INNER) - 2,
            f"{at}ssm_a": -np.exp(matrix(dice, INNER, STATE)),
            f"{at}ssm_d": norm(dice, INNER),
            f"{at}ssm_out.weight": matrix(dice, WIDTH, INNER),
        }
    return weights


def gemma3(writer: gguf.GGUFWriter, dice: np.random.Generator) -> Weights:
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(SIZE)
    writer.add_value_length(SIZE)
    writer.add_sliding_window(WINDOW)
    weights: Weights = {}
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            weights[f"{at}{name}.weight"] = norm(dice, WIDTH)
        for name in ("attn_q_norm", "attn_k_norm"):
            weights[f"{at}{name}.weight"] = norm(dice, SIZE)
        weights |= {
            f"{at}attn_q.weight": matrix(dice, HEADS * SIZE, WIDTH),
            f"{at}attn_k.weight": matrix(dice, KV_HEADS * SIZE, WIDTH),
            f"{at}attn_v.weight": matrix(dice, KV_HEADS * SIZE, WIDTH),
            f"{at}attn_output.weight": matrix(dice, WIDTH, HEADS * SIZE),
            f"{at}ffn_gate.weight": matrix(dice, HIDDEN, WIDTH),
            f"{at}ffn_up.weight": matrix(dice, HIDDEN, WIDTH),
            f"{at}ffn_down.weight": matrix(dice, WIDTH, HIDDEN),
        }
    return weights


def write(path: Path, arch: str, parts: Callable[[gguf.GGUFWriter, np.random.Generator], Weights]) -> Path:
    dice = np.random.default_rng(3)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"tiny {arch}")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCABULARY)
    weights = {"token_embd.weight": matrix(dice, VOCABULARY, WIDTH) * 4, "output_norm.weight": norm(dice, WIDTH)}
    weights |= parts(writer, dice)
    writer.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>"]
    tokens += [f"▁{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(VOCABULARY - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(VOCABULARY)])
    writer.add_token_types([2, 3, 3] + [1] * (VOCABULARY - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['role'] + ' ' + m['content'] }}{% endfor %}")
    for name, values in weights.items():
        writer.add_tensor(name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module", params=[("mamba", mamba), ("gemma3", gemma3)], ids=lambda param: param[0])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    arch, parts = request.param
    path = write(tmp_path_factory.mktemp(arch) / f"{arch}.gguf", arch, parts)
    with Bundle.open(path, ctx=CONTEXT, kv_type="f32", flash_attn="off") as bundle:
        yield bundle.model


def text(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, VOCABULARY, length).astype(np.int32)


def alone(model: LoadedModel, prompt: np.ndarray, n: int) -> list[int]:
    return Decoder(model).write(prompt, max_tokens=n, sampling=GREEDY).tokens.tolist()


def test_what_is_cached_is_never_used_wrongly(model: LoadedModel) -> None:
    """Prompts that go on, part, shrink and come back, behind commits and answers."""
    dice = random.Random(1)
    decoder = Decoder(model)
    spine = text(0, 60)
    for step in range(12):
        kind = dice.randrange(4)
        if kind == 0:
            prompt = spine[: dice.randrange(20, len(spine))]
        elif kind == 1:
            prompt = np.concatenate([spine, text(step, 20)]).astype(np.int32)
        elif kind == 2:
            prompt = np.concatenate([spine[:30], text(100 + step, 25)]).astype(np.int32)
        else:
            prompt = text(200 + step, 40)
        if dice.random() < 0.5:
            decoder.commit(prompt)
        done = decoder.write(prompt, max_tokens=12, sampling=GREEDY)
        assert done.tokens.tolist() == alone(model, prompt, 12), (step, kind)
        assert done.reused + done.prefilled == len(prompt)
        assert decoder.stats["leased"] == 0


def test_parallel_answers_and_scores_are_those_of_one_alone(model: LoadedModel) -> None:
    decoder = Decoder(model)
    head = text(5, 40)
    prompts = [np.concatenate([head, text(10 + i, 3 + i)]).astype(np.int32) for i in range(3)]
    together = decoder.write_many([Order(prompt, 10, GREEDY) for prompt in prompts])
    for prompt, done in zip(prompts, together, strict=True):
        assert done.tokens.tolist() == alone(model, prompt, 10)
    scored = decoder.score([(prompt, [text(30, 1), text(31, 4)]) for prompt in prompts])
    for prompt, found in zip(prompts, scored, strict=True):
        (expected,) = Decoder(model).score([(prompt, [text(30, 1), text(31, 4)])])
        for mine, theirs in zip(found.logprobs, expected.logprobs, strict=True):
            assert np.allclose(mine, theirs, atol=1e-3)


def test_what_cannot_move_is_read_again(model: LoadedModel) -> None:
    decoder = Decoder(model)
    old = text(7, 80)
    decoder.commit(old)
    moved = decoder.rebase(old, 10, 30)
    shorter = np.concatenate([old[:10], old[40:], text(8, 5)]).astype(np.int32)
    done = decoder.write(shorter, max_tokens=10, sampling=GREEDY)
    assert moved == 0 or decoder.can_shift
    if not moved:
        assert done.tokens.tolist() == alone(model, shorter, 10)


def test_copying_changes_nothing(model: LoadedModel) -> None:
    prompt = text(9, 50)
    expected = alone(model, prompt, 24)
    reference = np.array(expected, dtype=np.int32)
    reference[10:12] = 5
    decoder = Decoder(model)
    for _ in range(2):
        done = decoder.write(prompt, max_tokens=24, sampling=GREEDY, references=[reference])
        assert done.tokens.tolist() == expected
