"""Fitting a turn into the context: messages are composed as scenes, rendered, and tokenised last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ltm_edge.errors import ContextFull
from ltm_edge.loop.protocols import Tokens, Vocabulary
from ltm_edge.scene.chat_template import RenderedPrompt, render_chat
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.pvq import Pvq
from ltm_edge.schemas.template import Template

__all__ = ["FittedPrompt", "fit_prompt"]


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that fits.

    Attributes:
        tokens: int32 [n].
        rendered: the text and how it was made.
        dropped_turns: oldest turns of the history that had to stay out.
    """

    tokens: Tokens
    rendered: RenderedPrompt
    dropped_turns: int


def fit_prompt(
    composer: PromptComposer,
    vocabulary: Vocabulary,
    history: Sequence[Any],
    pvq: Pvq,
    template: Template,
    lang: str,
    *,
    n_ctx: int,
    max_tokens: int,
) -> FittedPrompt:
    """Render and tokenise the turn; leave out the oldest turns until prompt and answer fit into ``n_ctx`` tokens.

    Raises:
        ContextFull: the request doesn't fit even alone; carries the numbers.
    """
    room = n_ctx - max_tokens
    dropped = 0
    while True:
        kept = history[dropped:]
        rendered = render_chat(
            composer.messages(kept, pvq, template, lang),
            vocabulary.chat_template,
            vocabulary.bos,
            vocabulary.eos,
            lambda messages, _open: vocabulary.apply_builtin_template(messages),
            special_texts=vocabulary.special_texts,
        )
        pieces = rendered.pieces(vocabulary.special_texts)
        tokens = vocabulary.tokenize_segments((piece.text, piece.special) for piece in pieces)
        if len(tokens) <= room:
            return FittedPrompt(tokens, rendered, dropped)
        if dropped >= len(history):
            raise ContextFull(
                f"the request doesn't fit: it takes {len(tokens)} tokens with its instructions and the answer may take "
                f"{max_tokens}, the context holds {n_ctx}; shorten it, lower --max-tokens or raise --ctx",
                needed=len(tokens) + max_tokens,
                limit=n_ctx,
            )
        dropped += _turns_worth(history[dropped:], len(tokens) - room)


def _turns_worth(history: Sequence[Any], tokens: int) -> int:
    """Number of oldest turns that hold about ``tokens`` tokens, at no less than two characters each; at least 1."""
    count = 0
    characters = 0
    while count < len(history) and characters < 2 * tokens:
        characters += len(history[count].request) + len(history[count].document)
        count += 1
    return max(1, count)
