"""Copying from references: the same answer, sooner."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ltm_edge.engine.decoder import Decoder, Order, Sampling
from ltm_edge.engine.model import LoadedModel

pytestmark = pytest.mark.needs_model


@pytest.fixture(scope="module")
def demo_model(exact_model: LoadedModel) -> LoadedModel:
    return exact_model


GREEDY = Sampling(temperature=0.0, repeat_penalty=1.0)
# Logits of one token differ between batch shapes by rounding; the values themselves span 30.
TOLERANCE = 1e-3  # of log-probabilities in float32; see exact_model
GRAMMAR = r"""
root ::= "scene:\n  tension: \"" pole " vs " pole "\"\n"
pole ::= [a-z] [a-z ]{0,18} [a-z]
"""
TINY = "root ::= [12] [34] [12] [34] [12] [34]"  # digits: this model's tokenizer never joins them


@pytest.fixture
def decoder(demo_model: LoadedModel) -> Decoder:
    return Decoder(demo_model)


def prompt(model: LoadedModel, text: str):
    return model.tokenize_segments(
        [("<|im_start|>user\n", True), (text, False), ("<|im_end|>\n<|im_start|>assistant\n", True)]
    )


@pytest.mark.parametrize("text", ["Name two feelings that pull against each other.", "What does the sea want?"])
@pytest.mark.parametrize("gbnf", ["", GRAMMAR])
def test_greedy_answers_are_the_same_with_any_reference(decoder, demo_model, text, gbnf):
    tokens = prompt(demo_model, text)

    def write(*references):
        decoder.clear()
        return decoder.write(tokens, max_tokens=26, sampling=GREEDY, gbnf=gbnf, references=references)

    plain = write()
    assert plain.proposed == plain.copied == 0
    perturbed = plain.tokens.copy()
    perturbed[len(perturbed) // 2] = demo_model.tokenize(" zinc")[0]
    other = demo_model.tokenize("Rain falls on the roof all night, and the river rises.")
    for references in ([plain.tokens], [perturbed], [other], [other[:0]], [other, perturbed, plain.tokens]):
        done = write(*references)
        assert done.copied <= done.proposed
        if done.text == plain.text:
            continue
        # Only where two tokens were nearly equally likely: a longer batch rounds otherwise.
        at = next(i for i, (a, b) in enumerate(zip(plain.tokens, done.tokens, strict=False)) if a != b)
        before = np.concatenate([tokens, plain.tokens[:at]])
        mine, theirs = decoder.score([(before, [done.tokens[at : at + 1], plain.tokens[at : at + 1]])])[0].logprobs
        assert abs(float(mine[0]) - float(theirs[0])) < TOLERANCE, (plain.text, done.text)


def test_the_exact_answer_is_copied(decoder, demo_model):
    tokens = prompt(demo_model, "What does the sea want?")
    plain = decoder.write(tokens, max_tokens=40, sampling=GREEDY)
    done = decoder.write(tokens, max_tokens=40, sampling=GREEDY, references=[plain.tokens])
    assert done.copied > len(plain.tokens) // 2
    trace = done.to_trace("revise")["tokens"]
    assert trace["sampled"] + trace["forced"] + trace["copied"] == len(done.tokens)


def test_the_grammar_is_obeyed_whatever_is_proposed(decoder, demo_model):
    tokens = prompt(demo_model, "Name two feelings.")
    wrong = demo_model.tokenize('scene:\n  tension: "LOVE vs 1234"\nscene: scene:\n  tension: "love vs "')
    for seed in range(6):
        done = decoder.write(
            tokens, max_tokens=50, sampling=Sampling(seed=seed), gbnf=GRAMMAR, references=[wrong, tokens]
        )
        assert done.complete and done.text.count(" vs ") >= 1 and done.text.islower()


def test_sampled_answers_have_the_same_distribution(decoder, demo_model):
    """Over a small language, chi-squared between answers with a reference and without. The seeds are fixed."""
    tokens = prompt(demo_model, "Spell something.")
    reference = demo_model.tokenize("1414141314232413")
    assert len(reference) == 16
    counts = []
    proposed = copied = tested = 0
    for references, first in (((), 1), ((reference,), 1001)):
        count: Counter[str] = Counter()
        for batch in range(8):
            orders = [
                Order(
                    tokens,
                    8,
                    Sampling(temperature=1.0, top_p=1.0, min_p=0.0, repeat_penalty=1.0, seed=first + 16 * batch + i),
                    TINY,
                    references,
                )
                for i in range(16)
            ]
            for done in decoder.write_many(orders):
                assert len(done.text) == 6 and set(done.text[::2]) <= set("12") and set(done.text[1::2]) <= set("34")
                count[done.text] += 1
                proposed += done.proposed
                copied += done.copied
        counts.append(count)
    assert proposed > copied > 30  # enough were taken, and enough refused, for a bias to show
    for position in range(6):  # each digit on its own: 1 degree of freedom, 0.01 % is at 15.1
        table = np.zeros((2, 2))
        for row, count in enumerate(counts):
            for text, n in count.items():
                table[row, text[position] in "13"] += n
        expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
        if expected.min() >= 5:
            tested += 1
            assert ((table - expected) ** 2 / expected).sum() < 15.1, (position, table)
    assert tested >= 4, (proposed, copied, counts)
