"""Fitting a turn into the context: messages are composed as scenes, rendered, and tokenised last.

What the model read and wrote before is not tokenised again: the tokens it wrote need not be those that the tokenizer
would cut its text into, and others would have to be computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltm_edge.errors import ContextFull
from ltm_edge.loop.protocols import Tokens, Vocabulary
from ltm_edge.scene.chat_template import RenderedPrompt, render_chat
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.pvq import Pvq
from ltm_edge.schemas.template import Template

__all__ = ["FittedPrompt", "Known", "common_prefix", "fit_prompt", "moved_tokens", "next_prompt"]

_LEAVE = 4  # when turns must go, a quarter of the room is freed, so that not every turn from then on moves the prompt
_SEAM = 32  # tokens that must agree for two prompts to be taken as the same text moved


@dataclass(frozen=True, slots=True)
class Known:
    """A text that the model has read or written, and the tokens (int32 [n]) it was cut into."""

    text: str
    tokens: Tokens


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

    @property
    def known(self) -> Known:
        """The prompt as what has been read."""
        return Known(self.rendered.text, self.tokens)


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
    recalled: str = "",
    manner: str = "",
    again: str = "",
    known: Sequence[Known] = (),
    dropped: int = 0,
) -> FittedPrompt:
    """Render and tokenise the turn; leave out the oldest turns until prompt and answer fit into ``n_ctx`` tokens.

    Args:
        recalled: what the memory brings up for the turn.
        manner: the directives of the turn's channels.
        again: the critics' questions to the draft before.
        known: texts read before, whose tokens are taken as they were where the prompt begins with one.
        dropped: oldest turns that were left out before, and stay out.

    Raises:
        ContextFull: the request doesn't fit even alone; carries the numbers.
    """
    room = wanted = n_ctx - max_tokens
    dropped = min(dropped, len(history))
    while True:
        rendered = _render(
            composer.messages(history[dropped:], pvq, template, lang, recalled, manner, again), vocabulary
        )
        tokens = _tokenize(rendered, vocabulary, known)
        if len(tokens) <= wanted or (len(tokens) <= room and dropped >= len(history)):
            return FittedPrompt(tokens, rendered, dropped)
        wanted = room - room // _LEAVE
        if dropped >= len(history):
            raise ContextFull(
                f"the request doesn't fit: it takes {len(tokens)} tokens with its instructions and the answer may take "
                f"{max_tokens}, the context holds {n_ctx}; shorten it, lower --max-tokens or raise --ctx",
                needed=len(tokens) + max_tokens,
                limit=n_ctx,
            )
        dropped += _turns_worth(history[dropped:], len(tokens) - wanted)


def next_prompt(
    composer: PromptComposer,
    vocabulary: Vocabulary,
    history: Sequence[Any],
    known: Sequence[Known],
) -> tuple[Tokens, int]:
    """What the next turn's prompt will begin with, whatever is asked: its tokens (int32 [n]).

    Returns:
        The tokens up to the place where a request stands, and how many of them the first turn's prompt has too.
    """
    mark = "\u2042next\u2042"

    def before(turns: Sequence[Any]) -> Tokens:
        rendered = _render(composer.messages(turns, Pvq(mark), composer.template, composer.lang), vocabulary)
        text, segments = rendered.text.partition(mark)[0], []
        left = len(text)
        for piece in rendered.pieces(vocabulary.special_texts):
            if left > 0:
                segments.append((piece.text[:left], piece.special))
            left -= len(piece.text)
        return _tokenize_pieces(text, segments, vocabulary, known)

    tokens = before(history)
    return tokens, common_prefix(tokens, before(())) if history else len(tokens)


def moved_tokens(old: Tokens, new: Tokens) -> tuple[int, int]:
    """Where ``new`` (int32 [m]) is ``old`` (int32 [n]) with a piece taken out of its middle.

    Returns:
        Tokens before that piece and tokens in it; (0, 0) if it is not so.
    """
    keep = common_prefix(old, new)
    seam = new[keep : keep + _SEAM]
    if keep == 0 or len(seam) < _SEAM:
        return 0, 0
    for start in np.flatnonzero(old[keep:] == seam[0]):
        place = keep + int(start)
        if place > keep and np.array_equal(old[place : place + _SEAM], seam):
            return keep, place - keep
    return 0, 0


def common_prefix(a: Tokens, b: Tokens) -> int:
    """How many tokens two texts (int32 [n], int32 [m]) begin with alike."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def _render(messages: Sequence[Any], vocabulary: Vocabulary) -> RenderedPrompt:
    return render_chat(
        messages,
        vocabulary.chat_template,
        vocabulary.bos,
        vocabulary.eos,
        lambda chat, _open: vocabulary.apply_builtin_template(chat),
        special_texts=vocabulary.special_texts,
    )


def _tokenize(rendered: RenderedPrompt, vocabulary: Vocabulary, known: Sequence[Known]) -> Tokens:
    pieces = rendered.pieces(vocabulary.special_texts)
    return _tokenize_pieces(rendered.text, [(piece.text, piece.special) for piece in pieces], vocabulary, known)


def _tokenize_pieces(
    text: str, pieces: Sequence[tuple[str, bool]], vocabulary: Vocabulary, known: Sequence[Known]
) -> Tokens:
    read = max((item for item in known if text.startswith(item.text)), key=lambda item: len(item.text), default=None)
    # Only a special token cuts a text in two for certain; elsewhere a token might reach over the seam.
    if read is None or not text.startswith(vocabulary.special_texts, len(read.text)):
        return vocabulary.tokenize_segments(pieces)
    parts, skip = [read.tokens], len(read.text)
    for piece, special in pieces:
        if skip < len(piece):
            parts.append(vocabulary.tokenize(piece[skip:], special=special))
        skip = max(0, skip - len(piece))
    return np.concatenate(parts).astype(np.int32, copy=False)


def _turns_worth(history: Sequence[Any], tokens: int) -> int:
    """Number of oldest turns that hold about ``tokens`` tokens, at no less than two characters each; at least 1."""
    count = 0
    characters = 0
    while count < len(history) and characters < 2 * tokens:
        characters += len(history[count].request) + len(history[count].document)
        count += 1
    return max(1, count)
