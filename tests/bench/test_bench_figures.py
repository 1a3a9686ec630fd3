"""What the benchmarks compute: statistics, tables, and what is counted as forced."""

from __future__ import annotations

import pytest

from ltm_edge.bench.documents import cases
from ltm_edge.bench.replay import replay
from ltm_edge.bench.table import number, render, stats
from ltm_edge.native import core


def test_statistics_are_over_tokens_of_the_best_over_rounds():
    found = stats([[3000, 9000], [900_000, 5000], [4000, 6000]])
    assert found is not None
    assert (found.mean, found.p50, found.max, found.rounds) == (4.0, 4.0, 5.0, 3)
    assert stats([]) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.123456, "0.12"), (1.2345, "1.23"), (12.345, "12.3"), (1234.5, "1234"), (7, "7"), (None, "–")]
)
def test_numbers_have_the_digits_that_say_something(value: float | None, text: str):
    assert number(value) == text


def test_a_table_lines_up():
    assert render(("", "a"), [("x", "1"), ("long", "22")]) == "       a\n----  --\nx      1\nlong  22"


def test_documents_follow_their_grammars():
    for case in cases():
        assert core().Grammar(case.gbnf).accepts(case.document.encode()), case.name


class _Letters:
    """Forces the rest of a word once its first letter is there."""

    def __init__(self, forced: dict[str, tuple[int, str]]) -> None:
        self._forced = forced
        self._text = ""

    def accept(self, token: int) -> None:
        self._text += chr(token)

    def forced(self, may_replace: int) -> tuple[int, list[int]]:
        replaced, rest = self._forced.get(self._text, (0, ""))
        if replaced > may_replace:
            return 0, []
        self._text = self._text[: len(self._text) - replaced] + rest
        return replaced, [ord(letter) for letter in rest]


def test_what_is_forced_is_counted():
    engine = _Letters({"": (0, "ab"), "abc": (0, "d"), "abcde": (1, "ef")})
    done = replay(b"abcdef", list, lambda token: bytes([token]), engine)
    assert (done.tokens, done.forced, done.jumps, done.non_canonical) == (6, 4, 3, 0)


def test_forcing_against_the_document_is_an_error():
    with pytest.raises(ValueError, match="byte 1"):
        replay(b"abc", list, lambda token: bytes([token]), _Letters({"a": (0, "x")}))
