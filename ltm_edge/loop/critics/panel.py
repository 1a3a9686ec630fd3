"""CriticPanel: all critics of a bundle judge one draft; one that fails is left out, and the turn goes on."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ltm_edge.errors import Cancelled
from ltm_edge.loop.critics.critic import Critic, Measured, built_in
from ltm_edge.loop.critics.exhibit import Embed, Exhibit, keeping
from ltm_edge.loop.critics.plugins import load_plugins
from ltm_edge.loop.critics.probe import Prober
from ltm_edge.loop.critics.verdict import Verdict
from ltm_edge.loop.protocols import Tokens
from ltm_edge.schemas.overlay import Overlay

__all__ = ["CriticPanel", "Judged"]

logger = logging.getLogger(__name__)

_PASSES = 0.5  # a critic that gives a bare score passes from here on


@dataclass(frozen=True, slots=True)
class Judged:
    """What all critics say of a draft.

    Attributes:
        verdicts: of those that came to one, in the panel's order.
        score: mean of their scores; 1 without any.
        passed: all of them passed.
        notices: sentences about those that were left out.
        ms: milliseconds of each critic by its name, of ``embed`` and of ``probe``.
    """

    verdicts: tuple[Verdict, ...] = ()
    score: float = 1.0
    passed: bool = True
    notices: tuple[str, ...] = ()
    ms: dict[str, float] = field(default_factory=dict)

    @property
    def questions(self) -> tuple[str, ...]:
        """Self-questions of those that did not pass."""
        return tuple(verdict.question for verdict in self.verdicts if verdict.question)

    @property
    def objections(self) -> tuple[Verdict, ...]:
        """The verdicts of those that did not pass."""
        return tuple(verdict for verdict in self.verdicts if not verdict.passed)

    @property
    def against(self) -> str:
        """Their names in one line, for people."""
        return ", ".join(verdict.critic for verdict in self.objections)

    def verdict(self, critic: str) -> Verdict | None:
        """The verdict of one critic, None if it has none."""
        return next((verdict for verdict in self.verdicts if verdict.critic == critic), None)

    def to_trace(self) -> dict[str, Any]:
        """As it stands in a turn's trace."""
        return {
            "score": round(self.score, 3),
            "passed": self.passed,
            "verdicts": [verdict.to_trace() for verdict in self.verdicts],
            "ms": {name: round(value, 2) for name, value in self.ms.items()},
        }


class CriticPanel:
    """All critics of a bundle. Belongs to one session; one caller at a time."""

    def __init__(self, critics: Iterable[Critic], overlay: Overlay, notices: Iterable[str] = ()) -> None:
        """Take the critics.

        Args:
            critics: those that judge, in this order.
            overlay: says how long a critic that isn't of the package may take.
            notices: sentences that the first judgement passes on.
        """
        self.critics = tuple(critics)
        self._patience = overlay.critics.patience
        self._notices = list(notices)
        self._hung: set[str] = set()

    @classmethod
    def of(cls, overlay: Overlay) -> CriticPanel:
        """The critics that the overlay enables, and those of installed packages that it names."""
        further, notices = load_plugins(overlay.critics.plugins)
        return cls((*built_in(overlay), *further), overlay, notices)

    def judge(self, exhibit: Exhibit, prober: Prober | None = None, read: Tokens | None = None) -> Judged:
        """What all critics say of a draft.

        A critic that raises, takes too long or gives no score from 0 to 1 is left out with a notice.

        Args:
            exhibit: the draft and what it is measured against.
            prober: asks the model; None: it isn't asked.
            read: prompt and document as the model has read them, int32 [n]; None: it isn't asked.

        Raises:
            Cancelled: the turn was cancelled.
        """
        notices, self._notices = self._notices, []
        ms: dict[str, float] = {}
        exhibit = self._embedded(exhibit, notices, ms)
        odds = self._probed(exhibit, prober, read, notices, ms)
        verdicts = []
        for critic in self.critics:
            if critic.name in self._hung:
                continue
            start = time.perf_counter()
            try:
                verdicts.append(self._verdict(critic, exhibit, odds))
            except Cancelled:
                raise
            except TimeoutError:
                self._hung.add(critic.name)
                notices.append(f"critic {critic.name} took over {self._patience:g} s; left out from now on")
            except Exception as error:  # a critic must not cost the turn
                logger.debug("critic %s", critic.name, exc_info=True)
                notices.append(f"critic {critic.name} failed and was left out: {type(error).__name__}: {error}")
            ms[critic.name] = (time.perf_counter() - start) * 1000
        score = math.fsum(verdict.score for verdict in verdicts) / len(verdicts) if verdicts else 1.0
        passed = all(verdict.passed for verdict in verdicts)
        return Judged(tuple(verdicts), score, passed, tuple(notices), ms)

    def _embedded(self, exhibit: Exhibit, notices: list[str], ms: dict[str, float]) -> Exhibit:
        """The exhibit with all texts embedded that its critics compare, in one call."""
        measured = [critic for critic in self.critics if isinstance(critic, Measured)]
        if exhibit.embed is None or not measured:
            return exhibit
        start = time.perf_counter()
        try:
            return keeping(exhibit, dict.fromkeys(text for critic in measured for text in critic.texts(exhibit)))
        except Cancelled:
            raise
        except Exception as error:  # an embedder that fails leaves the words
            notices.append(f"critics go by words only, texts can't be embedded: {type(error).__name__}: {error}")
            return replace(exhibit, embed=None)
        finally:
            ms["embed"] = (time.perf_counter() - start) * 1000

    def _probed(
        self, exhibit: Exhibit, prober: Prober | None, read: Tokens | None, notices: list[str], ms: dict[str, float]
    ) -> dict[str, float]:
        names = [one.name for one in self.critics if isinstance(one, Measured) and one.calibration(exhibit.lang)]
        if prober is None or read is None or not names:
            return {}
        start = time.perf_counter()
        try:
            odds = prober.ask(read, exhibit.lang, names)
            return {name: value for name, value in odds.items() if math.isfinite(value)}
        except Cancelled:
            raise
        except Exception as error:  # the signals are enough for a verdict
            notices.append(f"critics go without the model's own word: {type(error).__name__}: {error}")
            return {}
        finally:
            ms["probe"] = (time.perf_counter() - start) * 1000

    def _verdict(self, critic: Critic, exhibit: Exhibit, odds: dict[str, float]) -> Verdict:
        if isinstance(critic, Measured):
            return critic.judge(exhibit, odds.get(critic.name))
        found = _patiently(critic.judge, exhibit, self._patience)
        if not isinstance(found, Verdict):
            score = float(found)
            passed = score >= _PASSES
            found = Verdict(critic.name, score, passed, note=f"{critic.name} {score:.2f}")
        if not 0.0 <= found.score <= 1.0:
            raise ValueError(f"its score is {found.score}; it must be from 0 to 1")
        return found


class _Lent:
    """An embedder lent to another thread: when the time is over it is taken back, and a call that runs is awaited."""

    def __init__(self, embed: Embed) -> None:
        self._embed: Embed | None = embed
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        with self._lock:
            if self._embed is None:
                raise RuntimeError("the turn has gone on without this critic")
            return self._embed(texts)

    def take_back(self) -> None:
        with self._lock:
            self._embed = None


def _patiently(judge: Callable[[Exhibit], float | Verdict], exhibit: Exhibit, seconds: float) -> float | Verdict:
    """What ``judge`` returns or raises; TimeoutError if it takes longer, and it is left running in its thread."""
    lent = None if exhibit.embed is None else _Lent(exhibit.embed)
    shown = replace(exhibit, embed=lent)
    results: list[float | Verdict] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(judge(shown))
        except BaseException as error:  # SystemExit too: it is raised again where it is caught
            errors.append(error)

    thread = threading.Thread(target=work, name="critic", daemon=True)  # a hung one must not keep the program alive
    thread.start()
    thread.join(seconds)
    if lent is not None:
        lent.take_back()
    if thread.is_alive():
        raise TimeoutError
    if errors:
        raise RuntimeError(f"{type(errors[0]).__name__}: {errors[0]}") from errors[0]
    return results[0]
