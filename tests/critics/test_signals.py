"""Tables of texts that a signal takes and refuses, in English and Russian, without an embedder."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltm_edge.loop.critics import insight_seeker, obstructio, recursia
from ltm_edge.loop.critics.conflict import conflict
from ltm_edge.loop.critics.ending import finished
from ltm_edge.loop.critics.exhibit import Exhibit
from ltm_edge.loop.critics.lexicon import lexicon, packaged_words
from ltm_edge.loop.critics.reading import read
from ltm_edge.schemas.overlay import InsightWeights, ObstructioWeights, Recursia, RecursiaWeights
from tests.critics.scenes import REQUEST, RESPONSE, RESPONSE_RU, earlier, exhibit, russian, scene
from tests.timing import slowness

GOOD, BAD = 0.7, 0.4
ALL = (insight_seeker, obstructio, recursia)


def every(shown: Exhibit) -> dict[str, float]:
    return {name: value for critic in ALL for name, value in critic.signals(shown).items()}


def test_the_overlay_has_a_weight_for_every_signal_and_no_other():
    for critic, weights in zip(ALL, (InsightWeights, ObstructioWeights, RecursiaWeights), strict=True):
        assert list(critic.signals(exhibit())) == [one.name for one in dataclasses.fields(weights)]


def test_every_signal_is_explained_in_its_docstring():
    for critic in ALL:
        for name in critic.signals(exhibit()):
            assert f"``{name}``" in (critic.signals.__doc__ or "")


@pytest.mark.parametrize("shown", [exhibit(), russian()], ids=["en", "ru"])
def test_a_good_scene_lacks_nothing(shown: Exhibit):
    signals = every(shown)
    assert {name for name, value in signals.items() if value < 0.5} == set(), signals


# Signal, what is shown, and whether it is good.
TABLE = [
    ("new_to_request", exhibit(), True),
    ("new_to_request", exhibit(REQUEST), False),
    ("new_to_request", exhibit("You worked nine years on the same book and are afraid to finish it."), False),
    ("new_to_request", russian("Девять лет ты пишешь одну книгу и боишься её закончить."), False),
    ("new_to_memory", exhibit(recalled=("The garden needs water in the evening.",)), True),
    ("new_to_memory", exhibit(recalled=("Something else.", RESPONSE)), False),
    ("new_to_memory", russian(recalled=(RESPONSE_RU,)), False),
    ("own_words", exhibit(), True),
    ("own_words", exhibit("Believe in yourself. Everything happens for a reason. You've got this!"), False),
    ("own_words", exhibit("Remember that every journey takes time. Trust the process and stay positive."), False),
    ("own_words", russian("Верь в себя, и всё получится. Всё будет хорошо."), False),
    ("own_words", russian("Помни, что ты сильнее, чем думаешь. Шаг за шагом."), False),
    ("takes_up", exhibit(), True),
    ("takes_up", exhibit("Salt the water before the pasta goes in."), False),
    ("takes_up", russian("Посоли воду, прежде чем бросить макароны."), False),
    ("concrete", exhibit(), True),
    ("concrete", exhibit("Things change. Some people find that helpful."), False),
    ("concrete", russian("Встань в семь утра и напиши одну страницу."), True),
    ("concrete", russian("Всё меняется. Многим это помогает."), False),
    ("to_request", exhibit(), True),
    ("to_request", exhibit("Salt the water before the pasta goes in, and stir once."), False),
    ("to_request", russian("Посоли воду, прежде чем бросить макароны."), False),
    ("to_center", exhibit(), True),
    ("to_center", exhibit("Nine years are long, and books are long too."), False),
    ("to_center", russian("Годы идут, а рукопись лежит."), False),
    ("both_poles", exhibit(), True),
    ("both_poles", exhibit("Finish it this week."), False),
    ("both_poles", exhibit(tension="finishing the book"), False),
    ("direct", exhibit(), True),
    ("direct", exhibit("It depends. Hard to say, only you can decide that."), False),
    ("direct", exhibit("As an AI I don't have opinions about books."), False),
    ("direct", russian("Трудно сказать. Всё зависит от человека."), False),
    ("agreed", exhibit(disagreement=0.2), True),
    ("agreed", exhibit(disagreement=0.95), False),
    ("new_phrases", exhibit(), True),
    ("new_phrases", exhibit("Finish the book and finish the book and finish the book and finish the book."), False),
    ("new_phrases", russian("Допиши эту главу. Допиши эту главу. Допиши эту главу. Допиши эту главу."), False),
    ("new_sentences", exhibit(), True),
    ("new_sentences", exhibit("Finish one chapter by Friday. By Friday, finish one chapter."), False),
    ("new_sentences", russian("Допиши эту главу до пятницы. Так что до пятницы главу допиши."), False),
    ("new_to_earlier", exhibit(earlier=earlier("The garden needs water.")), True),
    ("new_to_earlier", exhibit(earlier=earlier("The garden needs water.", RESPONSE)), False),
    ("new_to_drafts", exhibit(drafts=earlier(RESPONSE.replace("Friday", "Sunday night"))), True),
    ("new_to_drafts", exhibit(drafts=earlier(RESPONSE)), False),
    ("depth", exhibit(drafts=earlier("Another text altogether.", "And one more.")), True),
    ("depth", exhibit(drafts=earlier(RESPONSE, RESPONSE, RESPONSE)), False),
]  # fmt: skip


@pytest.mark.parametrize(("signal", "shown", "good"), TABLE, ids=[f"{i}-{row[0]}" for i, row in enumerate(TABLE)])
def test_a_signal_takes_and_refuses(signal: str, shown: Exhibit, good: bool):
    value = every(shown)[signal]
    assert value >= GOOD if good else value <= BAD + 0.1, value


ENDED = [
    "Done.",
    "Is it?",
    'He said "yes."',
    "So be it!)",
    "Хорошо…",
    "Good luck 🙂",
    "1. One.\n2. Two.",
    "Up at 5:50.",
    "Done by Q3.",
    "The spot is dry. Kind regards, Jo",
]
OPEN = [
    "Then comes the", "It needs three things:", "First this,", "1. Open it.\n2.", 'Say "I took the 3rd, the 9th,',
    "Сначала надо", "Есть признаки, с которыми идут сразу:", "Do this.\n\n    show(items", "",
]  # fmt: skip
HALF = [
    'He said "no and went.', "There are two ways out.", "Three things. Open the door.",
    "Have a look. There is a trick.", "Есть простое средство.",
]  # fmt: skip


@pytest.mark.parametrize("text", ENDED)
def test_an_end_is_seen(text: str):
    assert finished(text, lexicon("ru" if "о" in text else "en")) == 1.0


@pytest.mark.parametrize("text", OPEN)
def test_a_text_that_breaks_off_is_seen(text: str):
    assert finished(text, lexicon("en")) <= 0.1


@pytest.mark.parametrize("text", HALF)
def test_a_text_that_announces_more_than_it_has_is_seen(text: str):
    assert finished(text, lexicon("ru" if "с" in text else "en")) <= 0.4


def test_code_that_is_closed_is_an_end_and_a_list_may_lack_full_stops():
    words = lexicon("en")
    assert finished("Run this:\n\n    print(sum(rows))", words) == 1.0
    assert 0.5 < finished("Buy:\n- salt\n- oil", words) < 1.0


AT_ODDS = [
    ("en", "Always open the window at night. Never open the window at night."),
    ("en", "You should call him today. You should not call him today."),
    ("en", "Bake the bread for 20 minutes. Bake the bread for 50 minutes."),
    ("en", "Don't tell your brother. Tell your brother."),
    ("ru", "Всегда открывай окно на ночь. Никогда не открывай окно на ночь."),
    ("ru", "Позвони брату сегодня. Сегодня брату не звони."),
]
AT_ONE = [
    ("en", RESPONSE),
    ("en", "Open the window in the morning. Read a page before you sleep."),
    ("ru", RESPONSE_RU),
    ("ru", "Открой окно утром. Вечером прочти страницу."),
]


@pytest.mark.parametrize(("lang", "text"), AT_ODDS)
def test_what_denies_itself_is_seen(lang: str, text: str):
    assert conflict(read(text), lexicon(lang)) >= 0.6


@pytest.mark.parametrize(("lang", "text"), AT_ONE)
def test_what_agrees_with_itself_is_left_alone(lang: str, text: str):
    assert conflict(read(text), lexicon(lang)) <= 0.4


def vectors(of: dict[str, tuple[float, ...]]):
    def embed(texts):
        rows = np.array([of.get(text, (0.0, 0.0, 1.0)) for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return embed


def test_meaning_counts_where_there_is_an_embedder():
    text = "Tack the sail before the wind turns. Then ring the bell."
    near = exhibit(text, embed=lambda texts: np.ones((len(texts), 3), dtype=np.float32) / np.sqrt(np.float32(3)))
    far = exhibit(text, embed=vectors({text: (1.0, 0.0, 0.0)}))
    assert obstructio.signals(near)["to_request"] == 1.0 > BAD > obstructio.signals(far)["to_request"]
    assert insight_seeker.signals(near)["takes_up"] == 1.0 > insight_seeker.signals(far)["takes_up"]
    assert obstructio.signals(near)["both_poles"] == 1.0
    assert recursia.signals(near)["new_sentences"] == 0.0 < recursia.signals(exhibit(text))["new_sentences"]


def test_vectors_that_are_none_leave_the_words():
    broken = exhibit(embed=lambda texts: np.full((len(texts), 3), np.nan, dtype=np.float32))
    assert every(broken) == every(exhibit())


def test_the_last_draft_may_be_kept_as_often_as_the_overlay_says():
    shown = exhibit(drafts=earlier(RESPONSE))
    assert recursia.signals(shown, Recursia(max_depth=1))["depth"] == 0.0
    assert recursia.signals(shown, Recursia(max_depth=4))["depth"] == 0.75
    new = exhibit(drafts=earlier(RESPONSE, "Something else entirely, with other words."))
    assert recursia.signals(new, Recursia(max_depth=1))["depth"] == 1.0


ODD = [
    "", " ", "a", "a" * 100_000, "word " * 20_000, "Ab. " * 25_000, "no yes " * 15_000, "🙂🙂🙂", "…", "?!",
    "1 2 3 4 5", "漢字とかな。それだけ。", "שלום עולם", "ไม่เป็นไร", "\n\n\n", "    code\n    code", "не " * 30_000,
    "a\u0301\u200b",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD, ids=[f"{text[:8]!r}x{len(text)}" for text in ODD])
@pytest.mark.parametrize("lang", ["en", "ru", "xx"])
def test_whatever_is_written_signals_are_from_0_to_1(text: str, lang: str):
    shown = Exhibit(
        text, text, lang, scene(text, tension=text, resonance_center=text), (text,), earlier(text), earlier(text)
    )
    assert all(0.0 <= value <= 1.0 for value in every(shown).values())


@settings(max_examples=60)
@given(st.text(max_size=400), st.text(max_size=200), st.sampled_from(["en", "ru", "de"]))
def test_signals_are_numbers_from_0_to_1(response: str, request: str, lang: str):
    shown = Exhibit(request, None, lang, scene(response, tension=request, resonance_center=request), (request,))
    first = every(shown)
    assert all(0.0 <= value <= 1.0 for value in first.values())
    assert every(shown) == first


def test_the_words_of_the_package_are_words_that_stems_tell_apart():
    for lang, words in packaged_words().languages.items():
        compiled = lexicon(lang)
        assert len(words.stock) >= 120 and all(phrase.strip() for phrase in compiled.stock)
        assert not [pair for pair in compiled.opposites if pair[0] == pair[1]], lang
        assert not compiled.general & compiled.concrete


def test_long_texts_take_bounded_time():
    for text in ("a" * 100_000, "Finish the book, not today. " * 3600, "no, yes; " * 11_000):
        shown = exhibit(text)
        start = time.process_time()
        every(shown)
        assert time.process_time() - start < 2.0 * slowness()  # some tens of milliseconds
