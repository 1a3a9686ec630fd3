"""SelfLoop: when a draft is sent back, which one wins, and what ends it; drafts and verdicts are made up."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ltm_edge.loop.self_loop import Budget, JudgedDraft, LoopResult, SelfLoop
from ltm_edge.schemas.overlay import SelfLoopLimits
from tests.loop.drafts import draft, judged

# (score, no critic against it) of each draft in the order in which they would be written; None: none can be written.
Plan = list[tuple[float, bool] | str | None]


def made(plan: Plan) -> list[JudgedDraft | None]:
    drafts: list[JudgedDraft | None] = []
    for number, one in enumerate(plan):
        kind = "revision" if number else "draft"
        if one is None:
            drafts.append(None)
        elif isinstance(one, str):  # what stopped it
            drafts.append(judged(draft(f"draft {number}", kind=kind, stop=one)))
        else:
            drafts.append(judged(draft(f"draft {number}", kind=kind), *one))
    return drafts


def run(plan: Plan, *, passes: int = 4, depth: int = 3, enabled: bool = True, stops: str = "") -> LoopResult:
    """The loop over a plan; ``stops`` is what holds it up from its second question on."""
    first, *further = made(plan)
    assert first is not None
    queue = iter(further)
    seen = [first]

    def revise(last: JudgedDraft) -> JudgedDraft | None:
        assert last is seen[-1], "a revision is one of the draft before it"
        following = next(queue)
        if following is not None:
            seen.append(following)
        return following

    limits = SelfLoopLimits(enabled=enabled, max_passes=passes, accept=0.6)
    return SelfLoop(limits, depth).run(first, revise, lambda: stops if len(seen) > 1 or not further else "")


def place(result: LoopResult) -> int:
    return [one is result.best for one in result.tried].index(True)


@pytest.mark.parametrize(
    ("plan", "options", "best", "tried", "why"),
    [
        ([(0.7, True)], {}, 0, 1, "accepted"),
        ([(0.6, True)], {}, 0, 1, "accepted"),  # at the limit
        ([(0.59, True), (0.7, True)], {}, 1, 2, "accepted"),  # nobody against it, but not good enough
        ([(0.9, False), (0.7, True)], {}, 1, 2, "accepted"),  # good on average, but one against it
        ([(0.2, False), (0.4, False), (0.8, True)], {}, 2, 3, "accepted"),
        ([(0.4, False)], {"passes": 1}, 0, 1, "passes"),
        ([(0.4, False)], {"enabled": False}, 0, 1, "passes"),
        ([(0.4, False), (0.5, False)], {"passes": 2}, 1, 2, "passes"),
        ([(0.5, False), (0.4, False)], {"passes": 2}, 0, 2, "passes"),  # worse: the first one stays
        ([(0.5, False), (0.5, False)], {"passes": 2}, 0, 2, "passes"),  # alike: the earlier one stays
        ([(0.9, False), (0.3, True)], {"passes": 2}, 1, 2, "passes"),  # nobody against it outranks the score
        ([(0.5, False), (0.4, False)], {"depth": 1}, 0, 2, "no better"),
        ([(0.5, False), (0.4, False), (0.45, False)], {"depth": 2}, 0, 3, "no better"),
        ([(0.3, False), (0.4, False), (0.2, False)], {"depth": 1}, 1, 3, "no better"),  # what is better starts anew
        ([(0.5, False), None], {}, 0, 1, "budget"),
        ([(0.5, False), (0.55, False), None], {}, 1, 2, "budget"),
        ([(0.5, False), (0.4, False)], {"stops": "budget"}, 0, 2, "budget"),
        ([(0.5, False), (0.4, False)], {"stops": "cancelled"}, 0, 2, "cancelled"),
        ([(0.5, False), (0.8, True)], {"stops": "budget"}, 1, 2, "accepted"),  # spent, and nothing more is wanted
        (["length"], {}, 0, 1, "incomplete"),
        (["cancelled"], {}, 0, 1, "cancelled"),
        (["sink"], {}, 0, 1, "cancelled"),
        ([(0.4, False), "length"], {}, 0, 2, "incomplete"),  # what is whole outranks what is not
        ([(0.4, False), "cancelled"], {}, 0, 2, "cancelled"),
    ],
)
def test_which_draft_wins_and_why_it_ends(
    plan: Plan, options: dict[str, object], best: int, tried: int, why: str
) -> None:
    result = run(plan, **options)  # type: ignore[arg-type]
    assert (place(result), len(result.tried), result.why) == (best, tried, why)
    assert result.cancelled == (why == "cancelled")


@pytest.mark.parametrize("plan", [[(0.9, True)], [(0.4, False), (0.9, True)]])
def test_what_was_stopped_is_not_accepted_however_good_it_is(plan: Plan) -> None:
    """Stopped while the critics read it: the turn must leave nothing behind."""
    result = run(plan, stops="cancelled")
    assert result.why == "cancelled" and result.cancelled and result.best is result.tried[-1]


def test_the_trace_names_the_accepted_draft_among_several_revisions() -> None:
    result = run([(0.2, False), (0.3, False), (0.4, False), (0.9, True)])
    trace = result.to_trace()
    assert (trace["passes"], trace["accepted"], trace["why"]) == (4, 3, "accepted")
    assert [one["score"] for one in trace["judged"]] == [0.2, 0.3, 0.4, 0.9]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The present moment, as the budget sees it."""
    moment = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: moment[0])
    yield moment


def test_a_budget_without_limits_gives_what_is_wanted() -> None:
    budget = Budget()
    budget.note(draft(), 5.0)
    assert budget.room(400) == 400 and budget.spent == 40


def test_a_budget_of_tokens_is_shared_by_all_drafts() -> None:
    budget = Budget(tokens=100)
    assert budget.room(400) == 100 and budget.room(30) == 30
    budget.note(draft(), 1.0)
    assert budget.room(400) == 60
    budget.note(draft(), 1.0)
    budget.note(draft(), 1.0)
    assert budget.room(400) == 0 and budget.spent == 120


def test_a_budget_of_seconds_goes_by_the_last_speed(clock: list[float]) -> None:
    budget = Budget(seconds=4.0, started=clock[0])
    assert budget.room(400) == 400  # how fast it goes isn't known yet
    clock[0] += 2.0
    budget.note(draft(), 2.0)  # 40 tokens
    assert budget.speed == 0.05 and budget.room(400) == 40 and budget.room(10) == 10
    clock[0] += 1.0
    assert budget.room(400) == 20
    clock[0] += 60.0
    assert budget.room(400) == 0


def test_the_speed_of_an_earlier_turn_counts_from_the_first_draft_on(clock: list[float]) -> None:
    assert Budget(seconds=4.0, speed=0.1, started=clock[0]).room(400) == 40


def test_a_draft_that_wrote_nothing_says_nothing_about_the_speed() -> None:
    budget = Budget(speed=0.1)
    empty = draft(stop="cancelled")
    object.__setattr__(empty.done, "tokens", empty.done.tokens[:0])
    budget.note(empty, 3.0)
    assert budget.speed == 0.1 and budget.spent == 0
