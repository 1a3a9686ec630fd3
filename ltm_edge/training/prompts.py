"""Prompts of training, rendered and tokenised by the code that a session uses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ltm_edge.scene.chat_template import Message, render_chat
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.vocabulary import Tokens, Vocabulary
from ltm_edge.schemas.prompts import Prompts
from ltm_edge.schemas.stories import TrainingScene
from ltm_edge.schemas.template import Template, scene_document
from ltm_edge.turn import Turn

__all__ = ["Prompter", "Tokens", "Vocabulary", "Words"]

Words = tuple[Tokens, npt.NDArray[np.float32]]
"""Token ids, int32 [n], and what the loss of each counts, float32 [n]: 0 where the model only reads it."""

_FIELD = re.compile(r"^  (\w+):.*\n?(?:^(?:   .*)?(?:\n|\Z))*", re.MULTILINE)  # of a scene as it is written


class Prompter:
    """Writes what the model reads, and what it is to write, as tokens.

    Args:
        vocabulary: of the base model.
        prompts: the words around a request.
        templates: by name.
        few_shot: examples at the head of a session, as the overlay says.
        emphasis: what the loss of a field's tokens counts, by the field's name; 1 where it isn't named.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompts: Prompts,
        templates: Mapping[str, Template],
        few_shot: int,
        emphasis: Mapping[str, float] | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.prompts = prompts
        self.templates = templates
        self._few_shot = few_shot
        self._emphasis = dict(emphasis or {})
        self._end = vocabulary.tokenize(vocabulary.eos, special=True)

    def document(self, scene: TrainingScene) -> str:
        """The scene as the model is to write it."""
        return scene_document(self.templates[scene.template], scene.scene)

    def composer(self, template: str, lang: str) -> PromptComposer:
        """What composes the messages of a session whose first turn has this template."""
        return PromptComposer(
            self.prompts, self.templates[template], lang, templates=self.templates, few_shot=self._few_shot
        )

    def opening(self, scene: TrainingScene, pvq: Pvq, lang: str, recalled: str = "", manner: str = "") -> Tokens:
        """A session's first prompt, int32 [n]."""
        composer = self.composer(scene.template, lang)
        messages = composer.messages((), pvq, self.templates[scene.template], lang, recalled, manner)
        return self._tokens(messages, "", np.zeros(0, np.int32))[1]

    def chain(self, scenes: Sequence[TrainingScene], lang: str, manner: str = "") -> Words:
        """A session of several turns with their answers; ``manner`` stands in the last one.

        The tokens of an answer are those it was written in, as in a session, and all answers are to be learned.
        """
        composer = self.composer(scenes[0].template, lang)
        history: list[Turn] = []
        text, tokens, weights = "", np.zeros(0, np.int32), np.zeros(0, np.float32)
        for index, scene in enumerate(scenes):
            last = index == len(scenes) - 1
            template = self.templates[scene.template]
            messages = composer.messages(history, scene.pvq, template, lang, "", manner if last else "")
            rendered, read = self._tokens(messages, text, tokens)
            if not rendered.startswith(text):  # a format that changes what was answered: that is only read, then
                weights = np.zeros(0, np.float32)
            document = self.document(scene)
            written, counts = self.answer(document, ended=last)
            weights = np.concatenate([weights, np.zeros(len(read) - len(weights), np.float32), counts])
            tokens = np.concatenate([read, written])
            text = rendered + document
            trace = {"request": scene.pvq.to_dict()}
            history.append(Turn(scene.pvq.text, document, "", scene.template, lang, trace=trace))
            if not last:  # the token that ends an answer: the next prompt brings it
                weights = np.concatenate([weights, np.ones(len(self._end), np.float32)])
        return tokens, weights

    def answer(self, document: str, *, ended: bool = True) -> Words:
        """An answer as it is written, with the token that ends it."""
        tokens = self.vocabulary.tokenize(document)
        weights = np.ones(len(tokens), np.float32)
        if self._emphasis:
            for found in _FIELD.finditer(document):
                start, stop = (len(self.vocabulary.tokenize(document[:at])) for at in found.span())
                weights[start:stop] = self._emphasis.get(found[1], 1.0)
        if ended:
            tokens = np.concatenate([tokens, self._end])
            weights = np.concatenate([weights, np.ones(len(self._end), np.float32)])
        return tokens, weights

    def chat(self, exchange: Sequence[tuple[str, str]]) -> Words:
        """An ordinary exchange of (request, answer) pairs, without any scene; the last answer is to be learned."""
        messages = []
        for request, reply in exchange[:-1]:
            messages += [Message("user", request), Message("assistant", reply)]
        messages.append(Message("user", exchange[-1][0]))
        _, read = self._tokens(messages, "", np.zeros(0, np.int32))
        written, weights = self.answer(exchange[-1][1])
        return np.concatenate([read, written]), np.concatenate([np.zeros(len(read), np.float32), weights])

    def _tokens(self, messages: Sequence[Message], text: str, tokens: Tokens) -> tuple[str, Tokens]:
        """The chat as text and tokens (int32 [n]); where it begins with ``text``, that is cut as ``tokens`` says."""
        vocabulary = self.vocabulary
        rendered = render_chat(
            messages,
            vocabulary.chat_template,
            vocabulary.bos,
            vocabulary.eos,
            lambda chat, _open: vocabulary.apply_builtin_template(chat),
            special_texts=vocabulary.special_texts,
        )
        pieces = [(piece.text, piece.special) for piece in rendered.pieces(vocabulary.special_texts)]
        if not text or not rendered.text.startswith(text):
            return rendered.text, vocabulary.tokenize_segments(pieces)
        parts, skip = [tokens], len(text)
        for piece, special in pieces:
            if skip < len(piece):
                parts.append(vocabulary.tokenize(piece[skip:], special=special))
            skip = max(0, skip - len(piece))
        return rendered.text, np.concatenate(parts).astype(np.int32, copy=False)
