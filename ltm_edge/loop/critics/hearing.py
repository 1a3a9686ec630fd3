"""Hearing: examples are put before the model as turns are, and it is asked about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ltm_edge.loop.critics.examples import Example
from ltm_edge.loop.critics.probe import Prober
from ltm_edge.loop.prompt import fit_prompt
from ltm_edge.loop.protocols import Tokens, Vocabulary, Writer
from ltm_edge.scene.choose import choose_template
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.pvq import Pvq
from ltm_edge.schemas.prompts import Prompts
from ltm_edge.schemas.template import Template

__all__ = ["Hearing"]

_ROOM = 512  # tokens kept for a document and its questions


class Hearing:
    """Examples put before the model as turns are: the session's head, the request, the document."""

    def __init__(
        self,
        writer: Writer,
        vocabulary: Vocabulary,
        prompts: Prompts,
        templates: Mapping[str, Template],
        few_shot: int,
    ) -> None:
        self._writer = writer
        self._vocabulary = vocabulary
        self._prompts = prompts
        self._templates = templates
        self._few_shot = few_shot
        self._prober = Prober(writer, vocabulary, prompts)
        self._composers: dict[tuple[str, str], PromptComposer] = {}

    def odds(
        self, examples: Sequence[Example], critics: Callable[[Example], Iterable[str]], done: Callable[[int], None]
    ) -> list[dict[str, float]]:
        """The model's log-odds on each example, by critic.

        Args:
            examples: in any order; those that have their head in common are read one after the other.
            critics: whose questions are asked about one.
            done: gets how many were read.

        Raises:
            ContextFull: an example doesn't fit into the context.
        """
        found: list[dict[str, float]] = [{} for _ in examples]
        order = sorted(range(len(examples)), key=lambda i: (*self._head(examples[i]), examples[i].request))
        for count, i in enumerate(order, 1):
            found[i] = self._prober.ask(self.read(examples[i]), examples[i].lang, critics(examples[i]))
            done(count)
        return found

    def read(self, example: Example) -> Tokens:
        """Prompt and document as a turn would have read and written them, int32 [n]."""
        name, lang = self._head(example)
        template = self._templates[name]
        composer = self._composers.get((name, lang))
        if composer is None:
            composer = PromptComposer(self._prompts, template, lang, None, self._templates, self._few_shot)
            self._composers[name, lang] = composer
        pvq = Pvq(example.request, goal=example.goal)
        fitted = fit_prompt(
            composer, self._vocabulary, (), pvq, template, lang, n_ctx=self._writer.n_ctx, max_tokens=_ROOM
        )
        document = self._vocabulary.tokenize(example.scene.to_yaml(tuple(template.fields)))
        return np.concatenate([fitted.tokens, document]).astype(np.int32)

    def _head(self, example: Example) -> tuple[str, str]:
        if example.template in self._templates:
            return str(example.template), example.lang
        return choose_template(example.request, self._templates, example.lang).name, example.lang
