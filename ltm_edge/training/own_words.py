"""A bundle's own words: prompts with the scenes that answer them, to measure what a LoRA was made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gguf_tools.measure import Passage
from ltm_edge.errors import TrainingError
from ltm_edge.schemas.stories import TrainingScene
from ltm_edge.training.course import Course, OverlaySet, Words
from ltm_edge.training.prompts import Prompter, Vocabulary

__all__ = ["own_words"]

_PARTS = ("held-out", "validation", "train")


def own_words(folder: Path, overlay: OverlaySet, vocabulary: Vocabulary, count: int = 4) -> list[Passage]:
    """Scenes as a session would ask for them, each with its answer.

    Args:
        folder: a bundle folder. Its training stories are taken, those first that nothing is trained on; of a folder
            without any, the examples of its scene templates.
        overlay: the folder's.
        vocabulary: of the base model.
        count: how many.

    Raises:
        SchemaError: a file of training data has problems.
        BundleError: a file can't be read.
    """
    words = Words.of(overlay)
    try:
        course = Course.read(folder, words)
    except TrainingError:  # no curriculum, or none of its data here
        return _of_templates(words, vocabulary, count)
    part = next((part for part in _PARTS if course.stories[part]), None)
    if part is None:
        return _of_templates(words, vocabulary, count)
    lines = [example.lines[0] for example in course.examples(vocabulary, part, ("create",), limit=count)]
    return [Passage(tuple(line.tokens.tolist()), int(np.argmax(line.weights > 0))) for line in lines]


def _of_templates(words: Words, vocabulary: Vocabulary, count: int) -> list[Passage]:
    """One example of each of so many templates, evenly over all; the prompts show no examples, which would tell it."""
    prompter = Prompter(vocabulary, words.prompts, words.templates, 0)
    shown = [
        (lang, TrainingScene(examples[0].pvq, template.name, examples[0].scene))
        for template in words.templates.values()
        for lang, examples in list(template.examples.items())[:1]
    ]
    found = []
    for lang, scene in (shown[number * len(shown) // count] for number in range(min(count, len(shown)))):
        prompt = prompter.opening(scene, scene.pvq, lang)
        answer, _ = prompter.answer(prompter.document(scene))
        found.append(Passage((*prompt.tolist(), *answer.tolist()), len(prompt)))
    return found
