"""Cost of whole turns against the bare draft: the same prompt, seed and grammar, and nothing else, per written token.

A turn is taken as the session makes it; then its own draft is written again by itself, in another context that was
given what the session's had cached of the prompt. Its text may differ all the same, by roundings of a cache that holds
other sequences too; so costs are per token. The turn is taken back, so that every round begins alike.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import numpy as np

from ltm_edge.bench.filled_memory import fill_memory
from ltm_edge.bench.variants import variant
from ltm_edge.bench.watch import Call, Watch
from ltm_edge.bundle import Bundle
from ltm_edge.engine.decoder import Decoder
from ltm_edge.loop.events import Stage
from ltm_edge.schemas.overlay import CRITICS, Calibration, Overlay
from ltm_edge.session import Reply, Session

__all__ = ["STAGES", "WAYS", "Case", "Whole", "WholeTurns", "measure_whole_turns", "stages_of"]

STAGES = (
    "lift",
    "recall",
    "route",
    "prompt",
    "draft",
    "critics: embed",
    "critics: probe",
    "critics: signals",
    "revise",
    "respond",
    "store",
    "rest",
)
WAYS = ("full turn", "with one revision", "consilium of four")

_TEMPLATE = "mirror"
_BEFORE = "I have worked on the same book for nine years and I am afraid to finish it."
_REQUESTS = (
    "Since the project was cancelled I feel like a failure and stay in bed until noon.",
    "I want to leave the office and open a bakery, but the loan frightens me.",
)
_PROBE = Calibration(shift=0.0, slope=1.0, weight=0.25)  # what a bundle that is calibrated asks


@dataclass(frozen=True, slots=True)
class Whole:
    """One turn.

    Attributes:
        ms: milliseconds from the request to the reply.
        tokens: of its longest first draft.
        outside: milliseconds outside of the models.
        stages: milliseconds by stage.
        recalled: tokens that the memory put into the prompt.
        revisions: that it had.
        bare: milliseconds per token of its first draft written by itself.
        same: whether that gave the same tokens.
    """

    ms: float
    tokens: int
    outside: float
    stages: dict[str, float]
    recalled: int
    revisions: int
    bare: float
    same: bool

    @property
    def each(self) -> float:
        """Milliseconds per token of the longest first draft."""
        return self.ms / max(self.tokens, 1)


@dataclass(frozen=True, slots=True)
class Case:
    """One request answered in one way, in all rounds."""

    rounds: tuple[Whole, ...]

    @property
    def best(self) -> Whole:
        """The quickest."""
        return min(self.rounds, key=lambda one: one.each)

    @property
    def bare(self) -> float:
        """Milliseconds per token of the bare draft, the best of the rounds."""
        return min(one.bare for one in self.rounds)


@dataclass(frozen=True, slots=True)
class WholeTurns:
    """All turns by way; each has a case for every request.

    A consilium's drafts differ from one draft by itself; it is compared with that of the full turn.
    """

    scenes: int
    ways: dict[str, tuple[Case, ...]]

    def ms(self, way: str) -> float:
        """Milliseconds of a turn: the best of its rounds, mean over the requests."""
        return fmean(case.best.ms for case in self.ways[way])

    def bare_ms(self) -> float:
        """Milliseconds of the full turns' bare drafts, likewise."""
        return fmean(case.bare * case.best.tokens for case in self.ways[WAYS[0]])

    def ratio(self, way: str) -> float:
        """Best turn over best bare draft, per token, mean over the requests."""
        return fmean(case.best.each / base.bare for case, base in zip(self.ways[way], self._bases(way), strict=True))

    def middle(self, way: str) -> float:
        """Median over the rounds of the same ratio within one round."""
        return median(
            one.each / base.bare
            for case, against in zip(self.ways[way], self._bases(way), strict=True)
            for one, base in zip(case.rounds, against.rounds, strict=True)
        )

    def outside_ms(self, way: str) -> float:
        """Milliseconds outside of the models: the least of the rounds, mean over the requests."""
        return fmean(min(one.outside for one in case.rounds) for case in self.ways[way])

    def stages(self, way: str) -> dict[str, float]:
        """Milliseconds by stage in the best rounds, mean over the requests."""
        return {name: fmean(case.best.stages[name] for case in self.ways[way]) for name in STAGES}

    def note(self, way: str) -> str:
        """What the figures hold, in a few words."""
        best = [case.best for case in self.ways[way]]
        rounds = [one for case in self.ways[way] for one in case.rounds]
        same = sum(one.same for one in rounds)
        text = f"{fmean(one.tokens for one in best):.0f}, {fmean(one.recalled for one in best):.0f} recalled"
        if way == WAYS[2]:
            return text
        text += f", {same} of {len(rounds)} the same text"
        return text if way == WAYS[0] else f"{text}, {sum(one.revisions for one in rounds)} revisions"

    def _bases(self, way: str) -> tuple[Case, ...]:
        return self.ways[WAYS[0] if way == WAYS[2] else way]


def stages_of(reply: Reply, ms: float, before_draft: float, watch: Watch) -> dict[str, float]:
    """Milliseconds by stage.

    Args:
        reply: of the turn.
        ms: of the whole turn.
        before_draft: until the draft began.
        watch: that was entered during it.
    """
    trace = reply.trace
    found = dict.fromkeys(STAGES, 0.0)
    found["lift"] = trace["lift"]["ms"]
    found["recall"] = trace["memory"]["ms"]["recall"]
    found["route"] = trace["routing"]["ms"]
    found["prompt"] = before_draft - found["lift"] - found["recall"] - found["route"]
    written = watch.named("write_many")
    found["draft"] = written[0].ms
    found["revise"] = sum(call.ms for call in written[1:])
    found["critics: probe"] = sum(call.ms for call in watch.named("score"))
    for judged in trace["loop"]["judged"]:
        found["critics: embed"] += judged["ms"].get("embed", 0.0)
        found["critics: signals"] += sum(judged["ms"].get(name, 0.0) for name in CRITICS)
    if "consilium" in trace:  # the trace has the times of the draft that was chosen; the others took as long
        others = len(trace["consilium"]["drafts"]) - 1
        first = trace["loop"]["judged"][0]["ms"]
        found["critics: embed"] += others * first.get("embed", 0.0)
        found["critics: signals"] += others * sum(first.get(name, 0.0) for name in CRITICS)
    found["respond"] = trace["ms_respond"]
    found["store"] = trace["memory"]["ms"].get("store", 0.0)
    found["rest"] = ms - sum(found.values())
    return found


def _overlay(overlay: Overlay) -> Overlay:
    """The overlay's turn with all parts on: three critics that ask the model too, one pass, and no refusal."""
    critics = overlay.critics
    languages = overlay.languages
    return replace(
        overlay,
        pvq=replace(overlay.pvq, infer="fast"),
        self_loop=replace(overlay.self_loop, enabled=True, max_passes=1, seconds=None, tokens=None),
        critics=replace(
            critics,
            insight_seeker=replace(critics.insight_seeker, enabled=True),
            obstructio=replace(critics.obstructio, enabled=True, refuse_below=0.0),
            recursia=replace(critics.recursia, enabled=True),
            plugins=(),
        ),
        consilium=replace(overlay.consilium, enabled="never", channels=4),
        routing=replace(overlay.routing, inputs=True),
        calibration={name: dict.fromkeys(languages, _PROBE) for name in CRITICS},
    )


def _again(overlay: Overlay) -> Overlay:
    """The same with a critic that no draft satisfies, so that every turn has exactly one revision."""
    critics = overlay.critics
    return replace(
        overlay,
        self_loop=replace(overlay.self_loop, max_passes=2),
        critics=replace(critics, insight_seeker=replace(critics.insight_seeker, threshold=1.0)),
    )


class _Turns:
    """A session that has had one turn, and a context of its own for bare drafts."""

    def __init__(self, session: Session, bare: Decoder, limit: int) -> None:
        self._session = session
        self._bare = bare
        self._limit = limit
        session.send(_BEFORE, template=_TEMPLATE, seed=0, max_tokens=limit)

    def take(self, request: str, seed: int, council: str) -> Whole:
        session = self._session
        session.settle()
        began: list[float] = []

        def note(event: object) -> None:
            if isinstance(event, Stage) and event.name in ("draft", "council"):
                began.append(time.perf_counter())

        with Watch() as watch:
            start = time.perf_counter()
            reply = session.send(
                request, on_event=note, template=_TEMPLATE, seed=seed, max_tokens=self._limit, council=council
            )
            ms = (time.perf_counter() - start) * 1000
        stages = stages_of(reply, ms, (began[0] - start) * 1000, watch)
        session.settle()
        written = watch.named("write_many")
        alone, same = self._alone(written[0])
        session.undo()
        return Whole(
            ms=ms,
            tokens=max(len(done.tokens) for done in written[0].result),
            outside=ms - watch.ms,
            stages=stages,
            recalled=reply.trace["memory"]["tokens"],
            revisions=len(written) - 1,
            bare=alone,
            same=same,
        )

    def _alone(self, written: Call) -> tuple[float, bool]:
        """The first draft by itself behind what was cached before it: milliseconds per token; whether it is the same.

        The cached KV is the session's own, so that as many tokens are computed anew as in the turn.
        """
        order, done = written.given[0], written.result[0]
        self._bare.clear()
        if done.reused:
            cached = order.prompt[: done.reused]
            data, count = written.model.save_state(cached)
            if count == 0 or not self._bare.restore_state(cached[:count], data):
                count = 0
            if count < len(cached):
                self._bare.commit(cached)
        start = time.perf_counter()
        (alone,) = self._bare.write_many([order], adapters=written.options.get("adapters"))
        ms = (time.perf_counter() - start) * 1000
        return ms / max(len(alone.tokens), 1), bool(np.array_equal(alone.tokens, done.tokens))


@contextmanager
def _turns(bundle: Bundle, memory: Path, overlay: Overlay, bare: Decoder, limit: int) -> Iterator[_Turns]:
    with (
        variant(bundle, overlay) as varied,
        varied.open_memory(memory) as scenes,
        varied.session(memory=scenes) as session,
    ):
        yield _Turns(session, bare, limit)


def measure_whole_turns(
    bundle: Bundle,
    rounds: int,
    limit: int,
    scenes: int,
    progress: Callable[[str], None] = lambda _: None,
) -> WholeTurns:
    """Measure whole turns.

    Args:
        bundle: whose turns; its switches are thrown as the comparison needs them.
        rounds: how often each turn is taken.
        limit: tokens that a draft may take.
        scenes: in the memory that is recalled from.
        progress: told what is being measured.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ltm-edge-turn-")))
        progress(f"a memory of {scenes} scenes")
        fill_memory(folder / "one", bundle.overlay_set, bundle.embedder, scenes)
        shutil.copytree(folder / "one", folder / "two")
        bare = Decoder(bundle.model)
        overlay = _overlay(bundle.overlay)
        once = stack.enter_context(_turns(bundle, folder / "one", overlay, bare, limit))
        again = stack.enter_context(_turns(bundle, folder / "two", _again(overlay), bare, limit))
        ways = {WAYS[0]: (once, "off"), WAYS[1]: (again, "off"), WAYS[2]: (once, "on")}
        found: dict[str, list[list[Whole]]] = {way: [[] for _ in _REQUESTS] for way in ways}
        progress("whole turns, warming up")
        for turns in (once, again):  # masks, pages and caches are warm from here on
            turns.take(_REQUESTS[0], 0, "off")
        for number in range(rounds):
            progress(f"whole turns, round {number + 1} of {rounds}")
            for place, request in enumerate(_REQUESTS):
                for way, (turns, council) in ways.items():
                    found[way][place].append(turns.take(request, place + 1, council))
    return WholeTurns(scenes, {way: tuple(Case(tuple(one)) for one in cases) for way, cases in found.items()})
