"""Training tasks: prompts as a session writes them, answers as a session reads them, damages that are damages."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ltm_edge.bundle import load_overlay
from ltm_edge.engine.model import LoadedModel
from ltm_edge.loop.prompt import Known, fit_prompt
from ltm_edge.scene.record import Scene
from ltm_edge.scene.words import content_stems
from ltm_edge.schemas.template import check_scene, scene_document
from ltm_edge.training.course import Course, Words
from ltm_edge.training.damage import DAMAGES, damage, sentences
from ltm_edge.training.prompts import Prompter
from ltm_edge.training.stories import load_stories
from ltm_edge.training.tasks import TaskMaker
from ltm_edge.turn import Turn

from . import small

BUNDLE = Path(__file__).parents[2] / "bundles" / "ltm-vortex-135m"
OVERLAY = load_overlay(BUNDLE)
STORIES = load_stories(BUNDLE / "data" / "stories", OVERLAY.templates, OVERLAY.archetype_names())
DIRECTIVES = {name: zone.directive for name, zone in OVERLAY.field.channels.items()}
CHAINS = [story for story in STORIES if len(story.scenes) >= 4]


def maker(vocabulary, **options) -> TaskMaker:
    prompter = Prompter(vocabulary, OVERLAY.prompts, OVERLAY.templates, OVERLAY.overlay.few_shot)
    return TaskMaker(prompter, DIRECTIVES, STORIES, **options)


@pytest.mark.needs_model
def test_a_chain_is_what_a_session_reads_and_writes(demo_model: LoadedModel):
    prompter = Prompter(demo_model, OVERLAY.prompts, OVERLAY.templates, 0)
    for story in CHAINS[:6]:
        tokens, learned = prompter.chain(story.scenes, "en")
        composer = prompter.composer(story.scenes[0].template, "en")
        history: list[Turn] = []
        known: list[Known] = []
        answers = []
        for scene in story.scenes:
            template = OVERLAY.templates[scene.template]
            prompt = fit_prompt(
                composer, demo_model, history, scene.pvq, template, "en", n_ctx=8192, max_tokens=400, known=known
            )
            document = scene_document(template, scene.scene)
            written = demo_model.tokenize(document)
            answers.append(written)
            read = np.concatenate([prompt.tokens, written])
            known = [Known(prompt.rendered.text + document, read)]
            trace = {"request": scene.pvq.to_dict()}
            history.append(Turn(scene.pvq.text, document, "", scene.template, "en", trace=trace))
        end = demo_model.tokenize(demo_model.eos, special=True)
        assert tokens.tolist() == [*read.tolist(), *end.tolist()]
        wanted = np.concatenate([np.concatenate([answer, end]) for answer in answers])
        assert tokens[learned > 0].tolist() == wanted.tolist()


def test_a_restored_scene_has_its_known_fields_in_the_prompt_and_its_masked_ones_not():
    vocabulary = small.Pieces()
    masked: Counter = Counter()
    for number in range(60):
        story = STORIES[number]
        scene = story.scenes[0]
        example = maker(vocabulary).make("restore", story.name, 0, str(number))
        assert example is not None
        (line,) = example.lines
        prompt = vocabulary.text(line.tokens[line.weights == 0])
        answer = vocabulary.text(line.tokens[line.weights > 0])
        assert answer == scene_document(OVERLAY.templates[scene.template], scene.scene) + "<|im_end|>"
        labels = {"with": "actors", "tension": "tension", "archetype": "archetype", "center": "resonance_center"}
        known = {name for label, name in labels.items() if f" {label}: " in prompt.split("<|im_start|>user")[1]}
        assert 1 <= 4 - len(known) <= 3
        masked.update(set(labels.values()) - known)
        assert f"tension: {scene.scene.tension}" in prompt or "tension" not in known
    assert min(masked.values()) > 20, masked


def test_judgements_are_as_often_yes_as_no_and_behind_what_critics_read():
    vocabulary = small.Pieces()
    words = OVERLAY.prompts.of("en").probe
    yes, no = (int(vocabulary.tokenize(word)[0]) for word in (words.yes, words.no))
    answers: Counter = Counter()
    for story in STORIES[:40]:
        example = maker(vocabulary).make("judge", story.name, 0, "1")
        assert example is not None
        good, *asked = example.lines
        document = scene_document(OVERLAY.templates[story.scenes[0].template], story.scenes[0].scene)
        for line in asked:
            text = vocabulary.text(line.tokens)
            critic = next(name for name, question in words.questions.items() if words.ask + question in text)
            assert np.flatnonzero(line.weights).tolist() == [len(line.tokens) - 1]
            right = yes if document + words.ask in text else no
            assert line.asked == (yes, no)
            assert int(line.tokens[-1]) == right
            answers[critic, right] += 1
            if right == yes:  # the scene stands there as it was learned, without the token that ends it
                shared = len(good.tokens) - 1
                assert line.tokens[:shared].tolist() == good.tokens[:shared].tolist()
    assert len(answers) == 6
    for critic in words.questions:
        assert answers[critic, yes] == answers[critic, no] > 10


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_scenes_stay_within_their_template_and_differ(kind: str):
    done = 0
    for story in STORIES[:60]:
        scene = story.scenes[0]
        template = OVERLAY.templates[scene.template]
        others = [one for other in STORIES if other.matter != story.matter for one in other.scenes]
        bad = damage(kind, scene, template, others, random.Random(1))
        if bad is None:
            continue
        done += 1
        assert bad != scene.scene
        assert not check_scene(template, bad)
        document = scene_document(template, bad)
        assert Scene.from_yaml(document) == replace(bad, response=Scene.from_yaml(document).response)
        again = damage(kind, scene, template, others, random.Random(1))
        assert again == bad
    assert done >= 40, kind


def test_a_denied_scene_says_the_opposite_in_its_own_words_behind_what_it_denies():
    turned: Counter = Counter()
    for story in STORIES[:80]:
        scene = story.scenes[0]
        template = OVERLAY.templates[scene.template]
        bad = damage("contradicting", scene, template, [], random.Random(story.name))
        if bad is None:
            continue
        before, after = sentences(scene.scene.response), sentences(bad.response)
        new = next((one for one in after if one not in before), None)
        if new is None:  # cut off by the template's bounds
            continue
        place = after.index(new)
        assert after[:place] == before[:place]  # it stands behind, and all else stays
        likest = max(after[:place], key=lambda one: len(set(one.lower().split()) & set(new.lower().split())))
        turned[" ".join(sorted(set(new.lower().split()) - set(likest.lower().split())))] += 1
    assert sum(turned.values()) > 40
    assert turned["don't"] and turned["isn't"], turned  # more ways than one


def test_a_one_sided_scene_keeps_both_poles_and_speaks_of_one():
    one_sided = 0
    for story in STORIES[:80]:
        scene = story.scenes[0]
        template = OVERLAY.templates[scene.template]
        for seed in range(4):
            bad = damage("missing_pole", scene, template, [], random.Random(seed))
            if bad is None or bad.tension != scene.scene.tension:
                continue
            one_sided += 1
            assert set(sentences(bad.response)) < set(sentences(scene.scene.response))
            touched = [set(content_stems(pole)) & set(content_stems(bad.response)) for pole in bad.poles]
            assert not all(touched)
    assert one_sided > 40


def test_a_field_that_counts_more_does_so_in_training_only(tmp_path: Path):
    curriculum = small.CURRICULUM.replace("  seed: 3", "  seed: 3\n  emphasis: {archetype: 3.0, response: 0.5}")
    course = small.course(tmp_path, curriculum)
    vocabulary = small.Pieces()
    loader = course.loader(vocabulary)
    tasks = Counter()
    for unit in loader.scheduler.units:
        example = loader.example(unit)
        if example.task == "chat":
            continue
        tasks[example.task] += 1
        (line,) = [line for line in example.lines if line.asked is None]
        parts = {count: vocabulary.text(line.tokens[line.weights == count]) for count in (0.5, 1.0, 3.0)}
        assert set(re.findall(r"  (\w+):", parts[0.5])) == {"response"}
        assert set(re.findall(r"  (\w+):", parts[3.0])) == {"archetype"}
        assert set(re.findall(r"^  (\w+):", parts[1.0], re.MULTILINE)) >= {"actors", "tension", "resonance_center"}
    assert {"create", "hold", "judge"} <= tasks.keys()
    for example in course.examples(vocabulary, "validation", ("create", "hold")):
        assert {float(weight) for line in example.lines for weight in line.weights} == {0.0, 1.0}


def test_what_the_judge_is_measured_on_it_was_not_taught():
    scene = STORIES[0].scenes[0]
    template = OVERLAY.templates[scene.template]

    def phrases(*, held_out: bool) -> set[str]:
        found = (damage("stock", scene, template, [], random.Random(i), held_out=held_out) for i in range(60))
        return {line for one in found if one is not None for line in one.response.replace(". ", ".\n").split("\n")}

    assert phrases(held_out=True) and not phrases(held_out=True) & phrases(held_out=False)


def test_directives_stand_in_a_third_of_the_prompts_and_never_in_those_for_measuring():
    vocabulary = small.Pieces()
    counts = {True: 0, False: 0}
    for variety in counts:
        one = maker(vocabulary, variety=variety)
        for story in STORIES[:100]:
            example = one.make("create", story.name, 0, "1")
            assert example is not None
            counts[variety] += "Manner: " in vocabulary.text(example.lines[0].tokens)
    assert counts[False] == 0 and 20 <= counts[True] <= 40, counts


def test_a_format_that_changes_answers_is_only_read(tmp_path: Path):
    vocabulary = small.Pieces()
    vocabulary.chat_template = small.FORMAT.replace("message['content']", "message['content'] | trim")
    story = CHAINS[0]
    tokens, learned = Prompter(vocabulary, OVERLAY.prompts, OVERLAY.templates, 0).chain(story.scenes[:2], "en")
    answer = scene_document(OVERLAY.templates[story.scenes[1].template], story.scenes[1].scene)
    assert vocabulary.text(tokens[learned > 0]) == answer + "<|im_end|>"


def test_an_ordinary_chat_has_no_scene_about_it(tmp_path: Path):
    found: Course = small.course(tmp_path)
    assert isinstance(found.words, Words)
    example = found.examples(small.Pieces(), "train", ("chat",))[0]
    line = example.lines[0]
    assert "YAML" not in small.Pieces().text(line.tokens)
    assert small.Pieces().text(line.tokens[line.weights > 0]) == "Hello.<|im_end|>"
