"""Traces in plain words."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ltm_edge.explain import explain, statistics

TRACE: dict[str, Any] = {
    "version": 1,
    "request": "hello",
    "template": {"name": "mirror", "why": "closest in wording", "scores": {"mirror": 0.41, "return": 0.405, "x": 0.1}},
    "lang": "ru",
    "model": "SmolLM2",
    "prompt": {"tokens": 812, "reused": 700, "prefilled": 112, "dropped_turns": 1},
    "passes": [
        {
            "kind": "draft",
            "tokens": {"reused": 0, "prefilled": 112, "sampled": 90, "forced": 10, "resampled": 3},
            "ms": {"prefill": 800.0, "decode": 2000.0, "sample": 30.0},
            "stop": "length",
        },
    ],
    "settings": {"temperature": 0.7, "seed": 1, "system": None},
    "notices": ["one earlier turn was left out"],
    "ms_total": 2950.0,
}


def test_everything_that_happened_is_told() -> None:
    text = "\n".join(explain(TRACE))
    for words in (
        "the template mirror: closest in wording.",
        "mirror 0.41, return 0.41, x 0.10",
        "Language of the scene: ru.",
        "Model: SmolLM2.",
        "812 tokens; 700 of them were already known, 112 had to be read",
        "1 earlier turn did not fit",
        "The draft has 100 tokens: 90 chosen by the model, 10 given by the template, 3 chosen again",
        "written in 2.00 s, 50.0 tokens/s",
        "Reading before it took 800 ms, 140.0 tokens/s.",
        "reached the longest allowed length",
        "temperature 0.7, seed 1.",
        "Note: one earlier turn was left out",
        "took 2.95 s",
    ):
        assert words in text, words
    assert "None" not in text


def test_statistics() -> None:
    text = "\n".join(statistics(TRACE))
    assert "812 tokens (700 reused, 112 prefilled, 1 dropped turns)" in text
    assert "100 tokens (90 sampled, 10 forced, 3 resampled)" in text
    assert "50.0 tokens/s" in text


def test_passes_are_numbered_where_there_are_several() -> None:
    lines = explain(TRACE | {"passes": TRACE["passes"] * 2})
    assert any(line.startswith("Pass 2 (draft)") for line in lines)


def test_an_empty_trace_is_said_to_be_empty() -> None:
    assert explain({}) == ["The trace of this turn is empty."]
    assert statistics({}) == ["No figures for this turn."]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tokens", "ms", "sampled", "prefill", "decode", "name", "scores", "stop"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(sorted(TRACE)), json))
def test_any_trace_can_be_told(trace: dict[str, Any]) -> None:
    for lines in (explain(trace), statistics(trace)):
        assert lines and all(isinstance(line, str) for line in lines)
