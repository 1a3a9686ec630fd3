"""Memory in a turn: what is brought up before the draft, and what is kept of the accepted answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from ltm_edge.errors import LtmError
from ltm_edge.loop.orientation import Pull
from ltm_edge.loop.protocols import Memory, Recalled, Vocabulary
from ltm_edge.scene.compose import PromptComposer
from ltm_edge.scene.pvq import Pvq
from ltm_edge.scene.record import Scene

__all__ = ["Clock", "Remembering", "Reminder"]

Clock = Callable[[], "datetime | None"]
"""Gives the present moment, with its zone; None is the machine's own."""

_SAID_CHARS = 300
_ANSWER_CHARS = 160
_SHOWN_CHARS = 60  # of a scene in the trace
_SHARE = 4  # recalled scenes never take more than this part of the room before the answer


@dataclass(frozen=True, slots=True)
class Reminder:
    """What a memory brought up for a turn.

    Attributes:
        text: as it stands in the prompt; empty if nothing is worth it.
        recalled: ids of the scenes in it.
        shown: ids of scenes that earlier turns brought up and that still stand in the prompt.
        trace: for the turn's trace, part ``memory``.
        notices: sentences for the user.
        hits: the scenes themselves.
    """

    text: str = ""
    recalled: tuple[int, ...] = ()
    shown: tuple[int, ...] = ()
    trace: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    hits: tuple[Recalled, ...] = ()

    @property
    def said(self) -> tuple[str, ...]:
        """What was said and answered in the scenes."""
        return tuple(text for hit in self.hits for text in (hit.scene.text, hit.scene.scene.response) if text)


class Remembering:
    """Recalls and stores for the turns of one session.

    A memory that fails costs a turn what it would have brought up, never the turn.
    """

    def __init__(self, memory: Memory, vocabulary: Vocabulary, clock: Clock) -> None:
        """Take the parts.

        Args:
            memory: the scene memory.
            vocabulary: the model's, by which the budget is counted.
            clock: from which ages count, and with which scenes are stored.
        """
        self._memory = memory
        self._vocabulary = vocabulary
        self._clock = clock

    def recall(
        self,
        pvq: Pvq,
        composer: PromptComposer,
        lang: str,
        prompt: Sequence[Any],
        room: int,
        answered: Sequence[Any] = (),
    ) -> Reminder:
        """What resonates with a request and doesn't stand in the prompt yet.

        Args:
            pvq: the request.
            composer: puts what is found into words.
            lang: language of the turn.
            prompt: turns that stand in the prompt.
            room: tokens of the context before the answer.
            answered: the turn that is answered again, which reminds of itself only.
        """
        start = time.perf_counter()
        policy = self._memory.policy
        budget = min(policy.budget_tokens, room // _SHARE)
        hits: list[Recalled] = []
        shown: tuple[int, ...] = ()
        notices: tuple[str, ...] = ()
        try:
            said, shown = self._standing(prompt)
            if budget > 0:
                hits = list(
                    self._memory.recall(
                        pvq,
                        budget_tokens=budget,
                        count_tokens=self._count,
                        exclude=(*said, *shown, *self._standing(answered)[0]),
                        least=policy.least_meaning,
                        at=self._clock(),
                    )
                )
        except LtmError as error:
            notices = (f"memory: {error}; this turn goes without it",)
        text = self._words(hits, composer, lang)
        while hits and self._count(text) > budget:  # what was found last matters least
            hits.pop()
            text = self._words(hits, composer, lang)
        trace = {
            "recalled": [{**hit.to_dict(), "said": _cut(_what(hit), _SHOWN_CHARS)} for hit in hits],
            "text": text,
            "tokens": self._count(text) if text else 0,
            "ms": {"recall": _ms(start)},
        }
        return Reminder(text, tuple(hit.scene.id for hit in hits), shown, trace, notices, tuple(hits))

    def pull(self, reminder: Reminder) -> Pull | None:
        """What the recalled scenes do to the field; None where nothing was recalled or nothing of it has a vector."""
        if not reminder.hits:
            return None
        try:
            found = self._memory.meanings([hit.scene.id for hit in reminder.hits])
        except LtmError:  # recalling has said it already
            return None
        known = [hit.scene for hit in reminder.hits if hit.scene.id in found]
        vectors = [found[scene.id] for scene in known]
        if not vectors or len({len(vector) for vector in vectors}) > 1:
            return None
        scores = (hit.to_dict().get("score") for hit in reminder.hits)
        best = max((float(score) for score in scores if isinstance(score, (int, float))), default=0.0)
        return Pull(np.stack(vectors), [scene.strength for scene in known], min(max(best, 0.0), 1.0))

    def store(
        self,
        reminder: Reminder,
        scene: Scene,
        pvq: Pvq,
        *,
        session: str,
        template: str,
        before: Sequence[Any],
        replaces: Any = None,
        score: float | None = None,
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Store an accepted answer; it is on disk when this returns.

        Args:
            reminder: what :meth:`recall` gave for the turn.
            scene: the accepted scene.
            pvq: the request.
            session, template: their names.
            before: earlier turns of the conversation.
            replaces: the turn whose answer this one replaces.
            score: the critics' mean score of the answer; None: nobody judged it.

        Returns:
            The part ``memory`` of the trace, and sentences for the user.
        """
        start = time.perf_counter()
        trace = dict(reminder.trace)
        notices: tuple[str, ...] = ()
        try:
            added = self._memory.add(
                scene,
                text=pvq.text,
                session=session,
                template=template,
                phase=pvq.phase,
                predecessor=next((number for turn in reversed(before) for number in self._standing([turn])[0]), None),
                recalled=reminder.recalled,
                shown=reminder.shown,
                replaces=self.added_by(replaces) if replaces is not None else None,
                at=self._clock(),
                score=score,
            )
            trace["stored"] = {
                "id": added.id,
                "uid": self._uid(added.id),
                "status": added.status,
                "superseded": list(added.superseded),
                "strengthened": list(added.strengthened),
            }
        except LtmError as error:
            notices = (f"memory: this turn was not stored: {error}",)
        trace["ms"] = {**trace.get("ms", {}), "store": _ms(start)}
        return trace, notices

    def take_back(self, turn: Any) -> None:
        """Forget the scene that a turn added.

        Raises:
            MemoryStoreError: it can't be forgotten.
        """
        added = self.added_by(turn)
        if added is not None:
            self._memory.forget(added)

    def drop(self, turn: Any) -> tuple[str, ...]:
        """Forget the scene that a turn added; sentences for the user where that fails."""
        try:
            self.take_back(turn)
        except LtmError as error:
            return (f"memory: the scene of the answer before was not forgotten: {error}",)
        return ()

    def added_by(self, turn: Any) -> int | None:
        """Id of the scene that a turn added to this memory; None if it added none."""
        stored = _part(turn).get("stored")
        return self._mine(stored) if isinstance(stored, Mapping) and stored.get("status") == "added" else None

    def _standing(self, turns: Sequence[Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of the scenes that turns are, and of those that they brought up."""
        said = (self._mine(_part(turn).get("stored")) for turn in turns)
        shown = (self._mine(hit) for turn in turns for hit in _list(_part(turn).get("recalled")))
        return tuple(dict.fromkeys(_numbers(said))), tuple(dict.fromkeys(_numbers(shown)))

    def _mine(self, named: Any) -> int | None:
        """The id in a trace, if it names the same scene in this memory: the turn may have been of another one."""
        number, uid = (named.get("id"), named.get("uid")) if isinstance(named, Mapping) else (None, None)
        return number if isinstance(number, int) and uid is not None and self._uid(number) == uid else None

    def _uid(self, number: int) -> str | None:
        found = self._memory.get(number)
        return found.uid if found is not None else None

    def _count(self, text: str) -> int:
        return len(self._vocabulary.tokenize(text))

    def _words(self, hits: Sequence[Recalled], composer: PromptComposer, lang: str) -> str:
        """One line a scene, oldest first, so that what is newer is read later."""
        lines = [_line(hit) for hit in sorted(hits, key=lambda hit: (hit.scene.created, hit.scene.id))]
        return composer.recalled(lines, lang) if lines else ""


def _numbers(found: Iterable[int | None]) -> Iterator[int]:
    return (number for number in found if number is not None)


def _part(turn: Any) -> Mapping[str, Any]:
    part = turn.trace.get("memory")
    return part if isinstance(part, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _what(hit: Recalled) -> str:
    return hit.scene.text or hit.scene.scene.response


def _line(hit: Recalled) -> str:
    """When it was, what the person said, and what was answered if that was a question, or nobody said anything.

    What was answered to a statement is left out: it is the model's own words, and a small model repeats them.
    """
    scene = hit.scene
    said, answer = _cut(scene.text, _SAID_CHARS), "" if scene.echo else _cut(scene.scene.response, _ANSWER_CHARS)
    parts = [part for part in (said, answer if not said or said.endswith("?") else "") if part]
    return f"{scene.created_at.astimezone():%Y-%m-%d}: {' | '.join(parts)}"


def _cut(text: str, limit: int) -> str:
    """At most so many characters on one line, up to the end of a sentence where there is one."""
    plain = " ".join(text.split())
    if len(plain) <= limit:
        return plain
    end = max(plain.rfind(mark, 0, limit) for mark in ".!?…")
    return plain[: end + 1] if end > limit // 2 else plain[: limit - 1].rstrip() + "…"


def _ms(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 1)
