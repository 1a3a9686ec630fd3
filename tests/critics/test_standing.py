"""What of a response stands for each signal that failed, and where its sentences stand in its text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm_edge.loop.critics.critic import built_in
from ltm_edge.loop.critics.reading import opening, read
from ltm_edge.loop.critics.standing import standing
from ltm_edge.schemas.overlay import parse_overlay
from tests.critics.scenes import REQUEST, earlier, exhibit, russian
from tests.memory.hashed import HashedEmbedder
from tests.overlays import switchboard

ASKED = "I have worked on the same book for nine years."
FIRST, SECOND, THIRD = "Give the first chapter to Anna.", "Set a date with her.", "Then close the drawer."

# The signal, the response, what else is known, and how many of the first sentences stand.
TABLE: list[tuple[str, str, dict[str, Any], int]] = [
    ("own_words", f"{FIRST} Believe in yourself. {THIRD}", {}, 1),
    ("own_words", f"Believe in yourself. {SECOND}", {}, 0),
    ("new_to_request", f"{FIRST} {ASKED} {THIRD}", {}, 1),
    ("new_to_memory", f"{FIRST} {SECOND} {THIRD}", {"recalled": ("Oh, and then close the drawer.",)}, 2),
    ("new_to_earlier", f"{FIRST} {SECOND} {THIRD}", {"earlier": earlier(SECOND)}, 1),
    ("new_phrases", f"{FIRST} {SECOND} Give the first chapter now.", {}, 2),
    ("new_phrases", "Stop it, stop it, stop it, stop it. Then close the drawer.", {}, 0),
    ("new_sentences", f"{FIRST} {THIRD} Give Anna that first chapter.", {}, 2),
    ("direct", f"{FIRST} {SECOND} It depends on many things.", {}, 2),
    ("consistent", f"{FIRST} {SECOND} Don't give the first chapter to Anna. {THIRD}", {}, 2),
    ("finished", f"{FIRST} {SECOND} And then you", {}, 2),
    # Something is wanting: half of it stands.
    ("concrete", f"{FIRST} {SECOND}", {}, 1),
    ("takes_up", f"{FIRST} {SECOND} {THIRD}", {}, 2),
    ("both_poles", f"{FIRST} {SECOND} {THIRD} {ASKED}", {}, 2),
    ("", f"{FIRST} {SECOND} {THIRD}", {}, 2),
    # All of it is at fault, there is but one sentence, or it is code.
    ("to_request", f"{FIRST} {SECOND} {THIRD}", {}, 0),
    ("new_to_drafts", f"{FIRST} {SECOND} {THIRD}", {}, 0),
    ("concrete", FIRST, {}, 0),
    ("concrete", f"{FIRST}\n  print(1)\n{SECOND} {THIRD}", {}, 0),
    ("no signal of ours", f"{FIRST} {SECOND}", {}, 0),
]


@pytest.mark.parametrize(("signal", "response", "known", "count"), TABLE)
def test_sentences_before_the_first_at_fault_stand(
    signal: str, response: str, known: dict[str, Any], count: int
) -> None:
    assert standing(exhibit(response, **known), signal) == count


def test_russian_is_read_by_its_own_words() -> None:
    assert standing(russian("Отдай главу Анне. Верь в себя. Назначь день."), "own_words") == 1


def test_by_meaning_the_later_of_the_two_nearest_sentences_is_at_fault() -> None:
    shown = exhibit("Give it to Anna. Set the table. Call Boris at noon.", embed=HashedEmbedder(256).embed)
    assert standing(shown, "new_sentences") in (1, 2)


def test_a_verdict_says_what_stands_for_its_weakest_signal() -> None:
    shown = exhibit(f"{FIRST} {SECOND} And then you")
    (critic,) = (one for one in built_in(parse_overlay(switchboard())) if one.name == "obstructio")
    verdict = critic.judge(shown)
    assert verdict.weakest == "finished" and verdict.stands == 2 == verdict.to_trace()["stands"]


@pytest.mark.parametrize(
    ("text", "count", "found"),
    [
        (f"{FIRST} {SECOND} {THIRD}", 1, FIRST),
        (f"{FIRST} {SECOND} {THIRD}", 2, f"{FIRST} {SECOND}"),
        (f"{FIRST} {SECOND}\n{THIRD}", 2, f"{FIRST} {SECOND}\n"),
        (f"1. {FIRST}\n2. {SECOND}\n3. {THIRD}", 1, f"1. {FIRST}\n"),
        (f"1. {FIRST} {SECOND}\n2. {THIRD}", 1, f"1. {FIRST}"),
        (f"{FIRST} {FIRST} {SECOND}", 2, f"{FIRST} {FIRST}"),
        (f"{FIRST} … {SECOND}", 1, FIRST),
        (f"{FIRST} {SECOND}", 2, ""),
        (f"{FIRST} {SECOND}", 0, ""),
        ("", 1, ""),
    ],
)
def test_the_opening_ends_where_the_next_sentence_begins(text: str, count: int, found: str) -> None:
    assert opening(text, count) == found


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from(["Go. ", "Is it? ", "1. ", "\n", "  x = 1\n", "… ", "«Да». ", "a", " "])),
    st.integers(0, 6),
)
def test_an_opening_is_a_beginning_with_so_many_sentences(parts: list[str], count: int) -> None:
    text = "".join(parts)
    found = opening(text, count)
    assert text.startswith(found)
    if found:
        assert read(found).sentences == read(text).sentences[:count]


@settings(max_examples=60)
@given(st.text(max_size=200), st.sampled_from(["", "direct", "consistent", "new_sentences"]))
def test_whatever_is_written_the_last_sentence_never_stands(text: str, signal: str) -> None:
    shown = exhibit(text, REQUEST)
    assert 0 <= standing(shown, signal) <= max(len(read(shown.scene.response).sentences) - 1, 0)
