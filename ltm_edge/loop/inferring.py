"""Inferring: what a request leaves open (tension, goal, centre), asked of the model under a small grammar."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from ltm_edge.errors import LtmError, SchemaError
from ltm_edge.grammar.template import pvq_gbnf
from ltm_edge.loop.protocols import Vocabulary, Writer
from ltm_edge.loop.scene_decoder import DraftOrder
from ltm_edge.scene.chat_template import Message, render_chat
from ltm_edge.scene.pvq import Pvq
from ltm_edge.schemas.prompts import Prompts
from ltm_edge.schemas.yaml import load_yaml

__all__ = ["Inferring"]

_MAX_CHARS = 60  # of each text
_MAX_TOKENS = 160

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Inferring:
    """Asks the model what pulls against what in a request, what is wanted, and what it turns on.

    Attributes:
        writer: the context that writes.
        vocabulary: its vocabulary and chat format.
        prompts: the words that ask.
        sampling: how tokens are chosen.
    """

    writer: Writer
    vocabulary: Vocabulary
    prompts: Prompts
    sampling: Any

    def infer(self, pvq: Pvq, lang: str) -> tuple[Pvq, tuple[str, ...]]:
        """The request with what it left open, and sentences for the user. Given values are never overwritten."""
        open_ = [key for key in ("tension", "resonance_center") if key not in pvq.scene]
        if pvq.goal is None:
            open_.append("goal")
        if not open_:
            return pvq, ()
        words = self.prompts.of(lang).infer
        rendered = render_chat(
            [Message("system", words), Message("user", pvq.text)],
            self.vocabulary.chat_template,
            self.vocabulary.bos,
            self.vocabulary.eos,
            lambda chat, _open: self.vocabulary.apply_builtin_template(chat),
            special_texts=self.vocabulary.special_texts,
        )
        pieces = rendered.pieces(self.vocabulary.special_texts)
        prompt = self.vocabulary.tokenize_segments((piece.text, piece.special) for piece in pieces)
        if len(prompt) + _MAX_TOKENS > self.writer.n_ctx:
            return pvq, ("the request is too long to be asked about; what it leaves open is left open",)
        try:
            (done,) = self.writer.write_many(
                [DraftOrder(prompt, _MAX_TOKENS, self.sampling, pvq_gbnf(open_, _MAX_CHARS))]
            )
            found = load_yaml(done.text, "<request>").data if done.complete else {}
        except SchemaError as error:  # the grammar rules it out
            _log.warning("what the model made of a request: %s", error)
            found = {}
        except LtmError as error:
            return pvq, (f"what the request leaves open is left open: {error}",)
        scene = {key: found[key] for key in ("tension", "resonance_center") if key in found}
        return replace(pvq, scene={**pvq.scene, **scene}, goal=pvq.goal or found.get("goal")), ()
