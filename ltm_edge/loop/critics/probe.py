"""Prober: what the model itself says of a draft, read from one batched pass behind what it has read already."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ltm_edge.loop.protocols import Tokens, Vocabulary, Writer
from ltm_edge.schemas.prompts import Prompts

__all__ = ["Prober"]


class Prober:
    """Asks the model the critics' questions about a draft.

    Behind the document stand the words that all questions have in common and one question each; the answer is never
    written, only the odds of the next token are read. So a probe costs the tokens of its question.
    """

    def __init__(self, writer: Writer, vocabulary: Vocabulary, prompts: Prompts) -> None:
        self._writer = writer
        self._vocabulary = vocabulary
        self._prompts = prompts

    def ask(self, read: Tokens, lang: str, names: Iterable[str]) -> dict[str, float]:
        """log P(yes) - log P(no) for each critic that has a question; none if it was cancelled.

        Args:
            read: prompt and document, int32 [n], computed under the base state.
            lang: language of the questions.
            names: the critics.

        Raises:
            EngineError: llama.cpp failed, or the context is full.
        """
        words = self._prompts.of(lang).probe
        yes, no = self._answers(words.yes, words.no)
        asked = [name for name in names if name in words.questions]
        if not asked or not len(yes) or not len(no) or np.array_equal(yes, no):
            return {}
        requests = []
        for name in asked:
            question = self._vocabulary.tokenize(words.ask + words.questions[name])
            requests.append((np.concatenate([read, question]).astype(np.int32), [yes, no]))
        return {
            name: float(scored.logprobs[0].sum() - scored.logprobs[1].sum())
            for name, scored in zip(asked, self._writer.score(requests), strict=False)
        }

    def _answers(self, yes: str, no: str) -> tuple[Tokens, Tokens]:
        """The tokens of both answers up to the first that tells them apart; what follows it would say nothing more."""
        ones, others = self._vocabulary.tokenize(yes), self._vocabulary.tokenize(no)
        common = 0
        while common < min(len(ones), len(others)) and ones[common] == others[common]:
            common += 1
        return ones[: common + 1], others[: common + 1]
