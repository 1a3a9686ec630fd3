"""Drafts and verdicts without a model, for the loop's policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ltm_edge.loop.critics.panel import Judged
from ltm_edge.loop.critics.verdict import Verdict
from ltm_edge.loop.prompt import FittedPrompt
from ltm_edge.loop.protocols import Tokens
from ltm_edge.loop.scene_decoder import Draft
from ltm_edge.loop.self_loop import JudgedDraft
from ltm_edge.scene.chat_template import RenderedPrompt
from ltm_edge.scene.record import Scene


@dataclass(frozen=True)
class Written:
    """What one decode did."""

    text: str
    tokens: Tokens
    stop: str = "eog"

    @property
    def complete(self) -> bool:
        return self.stop == "eog"

    def to_trace(self, kind: str) -> dict[str, Any]:
        return {"kind": kind, "stop": self.stop}


def scene(response: str = "I see.", centre: str = "an ordinary day") -> Scene:
    return Scene((("you", "guest"),), "work vs rest", ("host",), centre, response)


def draft(
    response: str = "I see.", *, kind: str = "draft", channel: str = "", stop: str = "eog", centre: str = "a day"
) -> Draft:
    """A draft of 40 tokens behind a prompt of 3; one that stopped early has no scene."""
    told = scene(response, centre)
    text = told.to_yaml() if stop == "eog" else told.to_yaml()[:30]
    prompt = FittedPrompt(np.arange(3, dtype=np.int32), RenderedPrompt("<prompt>", "plain", False, None, (), False), 0)
    written = Written(text, np.arange(40, dtype=np.int32), stop)
    return Draft(kind, channel, prompt, written, told if stop == "eog" else None)


def verdict(critic: str, score: float, *, passed: bool | None = None, weakest: str = "", question: str = "") -> Verdict:
    return Verdict(critic, score, score >= 0.5 if passed is None else passed, weakest=weakest, question=question)


def judged(one: Draft, score: float = 0.8, passed: bool = True) -> JudgedDraft:
    """A draft and one critic's word on it; of an incomplete one the loop's own."""
    if one.scene is None:
        return JudgedDraft(one, Judged((), 0.0, False))
    return JudgedDraft(one, Judged((verdict("obstructio", score, passed=passed),), score, passed))
