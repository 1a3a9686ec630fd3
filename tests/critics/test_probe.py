"""The model's own word, read from the real model: equal to a slow reading, cheap, and of every language."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ltm_edge.bundle import Bundle
from ltm_edge.engine.decoder import Decoder, Sampling
from ltm_edge.loop.critics.examples import examples_of
from ltm_edge.loop.critics.hearing import Hearing
from ltm_edge.loop.critics.panel import CriticPanel
from ltm_edge.loop.critics.probe import Prober
from ltm_edge.overlay_set import load_overlay
from ltm_edge.schemas.overlay import CRITICS, Calibration
from tests.critics.scenes import exhibit, scene

pytestmark = pytest.mark.needs_model

PACKAGED = load_overlay()
PROMPTS = PACKAGED.prompts


def document(model, lang: str = "en"):
    text = "<|im_start|>user\nI am afraid to finish the book.<|im_end|>\n<|im_start|>assistant\n" + scene().to_yaml()
    return model.tokenize(text, special=True)


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_one_batched_pass_says_what_slow_ones_say(exact_model, lang: str):
    read = document(exact_model)
    decoder = Decoder(exact_model)
    odds = Prober(decoder, exact_model, PROMPTS).ask(read, lang, CRITICS)
    assert set(odds) == set(CRITICS) and all(np.isfinite(value) for value in odds.values())
    words = PROMPTS.of(lang).probe
    yes, no = exact_model.tokenize(words.yes)[:1], exact_model.tokenize(words.no)[:1]
    for name in CRITICS:
        slow = Decoder(exact_model)
        prompt = np.concatenate([read, exact_model.tokenize(words.ask + words.questions[name])]).astype(np.int32)
        one = slow.score([(prompt, [yes])])[0].logprobs[0][0]
        slow.clear()
        other = slow.score([(prompt, [no])])[0].logprobs[0][0]
        assert odds[name] == pytest.approx(float(one - other), abs=2e-3)


def test_what_was_read_is_not_read_again(demo_model):
    decoder = Decoder(demo_model)
    read = document(demo_model)
    decoder.commit(read)
    counted = []

    class Counting:
        def score(self, requests):
            found = decoder.score(requests)
            counted.extend(one.prefilled for one in found)
            return found

    Prober(Counting(), demo_model, PROMPTS).ask(read, "en", CRITICS)  # type: ignore[arg-type]
    assert sum(counted) <= 30  # the words that all questions share once, and three short questions
    assert Prober(Counting(), demo_model, PROMPTS).ask(read, "en", ["stranger"]) == {}  # type: ignore[arg-type]


def test_a_panel_asks_the_real_model_and_writing_goes_on_unchanged(demo_model):
    decoder = Decoder(demo_model)
    read = document(demo_model)
    before = decoder.write(read, max_tokens=6, sampling=Sampling(temperature=0.0)).text
    overlay = replace(PACKAGED.overlay, calibration={name: {"en": Calibration(0.0, 1.0, 0.5)} for name in CRITICS})
    judged = CriticPanel.of(overlay).judge(exhibit(), Prober(decoder, demo_model, PROMPTS), read)
    assert judged.notices == () and all(verdict.probe is not None for verdict in judged.verdicts)
    assert decoder.write(read, max_tokens=6, sampling=Sampling(temperature=0.0)).text == before


def test_answers_that_begin_alike_are_told_apart_by_their_first_difference(demo_model):
    words = replace(PROMPTS.of("en").probe, yes=" yes indeed", no=" yes but")
    languages = {"en": replace(PROMPTS.of("en"), probe=words)}
    same = replace(PROMPTS, languages=languages)
    odds = Prober(Decoder(demo_model), demo_model, same).ask(document(demo_model), "en", ["obstructio"])
    assert np.isfinite(odds["obstructio"]) and odds["obstructio"] != 0.0
    equal = replace(PROMPTS, languages={"en": replace(PROMPTS.of("en"), probe=replace(words, no=" yes indeed"))})
    assert Prober(Decoder(demo_model), demo_model, equal).ask(document(demo_model), "en", ["obstructio"]) == {}


def test_a_full_context_is_a_notice_and_not_the_end_of_the_turn(demo_model):
    decoder = Decoder(demo_model)
    read = np.resize(document(demo_model), decoder.n_ctx).astype(np.int32)
    overlay = replace(PACKAGED.overlay, calibration={"recursia": {"en": Calibration(0.0, 1.0, 0.5)}})
    judged = CriticPanel.of(overlay).judge(exhibit(), Prober(decoder, demo_model, PROMPTS), read)
    assert len(judged.verdicts) == 3 and "without the model's own word" in judged.notices[0]


def test_examples_stand_before_the_model_as_turns_do(demo_bundle: Bundle):
    loaded = demo_bundle.overlay_set
    decoder = Decoder(demo_bundle.model)
    hearing = Hearing(decoder, demo_bundle.model, loaded.prompts, loaded.templates, loaded.overlay.few_shot)
    examples = [one for one in examples_of(loaded.templates) if one.template == "hearth"]
    found = hearing.odds(examples, lambda one: ["obstructio"], lambda done: None)
    assert all(set(odds) == {"obstructio"} for odds in found)
    again = hearing.odds(list(reversed(examples)), lambda one: ["obstructio"], lambda done: None)
    np.testing.assert_allclose(
        [odds["obstructio"] for odds in found], [odds["obstructio"] for odds in reversed(again)], atol=1.0
    )  # 4-bit weights: batches of another shape round otherwise
    tokens = hearing.read(examples[0])
    text = b"".join(demo_bundle.model.handle.piece(int(token), True) for token in tokens).decode()
    assert examples[0].request in text and text.endswith(
        examples[0].scene.to_yaml(tuple(loaded.templates["hearth"].fields))
    )
