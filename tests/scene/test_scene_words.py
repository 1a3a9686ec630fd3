"""Cleaning of requests, detection of their language, choice of a template."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ltm_edge.errors import InputError
from ltm_edge.scene.choose import choose_template
from ltm_edge.scene.clean import clean_request
from ltm_edge.scene.language import detect_language
from ltm_edge.schemas.template import Template, parse_template
from tests.timing import slowness

CLEAN = {
    "plain text, ничего не меняется 漢字 🚀": ("plain text, ничего не меняется 漢字 🚀", 0),
    "a\x00b\x07c": ("abc", 1),
    "tab\tand\nbreak": ("tab\tand\nbreak", 0),
    "win\r\nmac\rnel\x85ls\u2028": ("win\nmac\nnel\nls\n", 0),
    "lone \ud83d surrogate": ("lone \ufffd surrogate", 1),
    "pair \ud83d\ude80 joined": ("pair 🚀 joined", 0),
    "שלום\u200f עולם\u200e!": ("שלום\u200f עולם\u200e!", 0),
    "evil \u202etxt.exe\u202c": ("evil txt.exe", 1),
    "iso \u2067late\u2069": ("iso late", 1),
    "\ufeffbom": ("bom", 0),
    "non\ufdd0char\uffff\U0001fffe": ("nonchar", 1),
    "йё é".replace("й", "и\u0306").replace("ё", "е\u0308").replace("é", "e\u0301"): ("йё é", 0),
    "\x00\ud800\u202e\uffff": ("\ufffd", 4),
    "👩\u200d🚀 ❤️ Å K": ("👩\u200d🚀 ❤️ Å K", 0),
    "": ("", 0),
}


@pytest.mark.parametrize("text", CLEAN, ids=range(len(CLEAN)))
def test_clean_request(text: str) -> None:
    cleaned, notices = clean_request(text)
    assert (cleaned, len(notices)) == CLEAN[text]
    assert clean_request(cleaned) == (cleaned, ())
    cleaned.encode()


def test_size_limit() -> None:
    assert clean_request("x" * 1_000_000)[0]
    for text in ("x" * 1_000_001, "ж" * 500_001, "\ud800" * 400_000):
        with pytest.raises(InputError, match="at most 1000000") as caught:
            clean_request(text)
        assert "\n" not in str(caught.value)


LANGUAGES = {
    "I don't know whether I should keep building AGI.": "en",
    "Я не знаю, стоит ли продолжать строить AGI.": "ru",
    "как переименовать файлы в Python?": "ru",
    "Почему `for i in range(len(xs)): print(xs[i])` печатает два раза?": "ru",
    "what does the word «тоска» mean in English?": "en",
    "Open https://example.org/some/long/path/index.html и скажи, что там": "ru",
    "hi": "en",
    "да": "ru",
    "12345 !!! 🚀": "en",
    "": "en",
    "漢字": "en",
    "ok, понятно": "ru",
}


@pytest.mark.parametrize("text", LANGUAGES)
def test_language_by_script(text: str) -> None:
    assert detect_language(text, ("en", "ru")) == LANGUAGES[text]


def test_languages_that_share_a_script() -> None:
    assert detect_language("Je ne sais pas si je dois continuer à construire cette maison.", ("en", "fr", "ru")) == "fr"
    assert detect_language("Ich weiß nicht, ob ich weitermachen soll.", ("en", "de", "ru")) == "de"
    assert detect_language("Не знаю, чи варто мені продовжувати це будувати.", ("en", "ru", "uk")) == "uk"
    assert detect_language("これは何ですか", ("en", "ja", "zh")) == "ja"
    assert detect_language("Wer ist da?", ("en", "ru")) == "en"
    assert detect_language("12", ("ru",)) == "ru"
    assert detect_language("text", (), "ru") == "ru"


def test_statistics_are_not_loaded_for_what_the_script_decides() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from ltm_edge.scene.language import detect_language as d;"
        "assert d('Привет', ('en', 'ru')) == 'ru'; assert d('Hello', ('en', 'ru')) == 'en';"
        "assert not {'py3langid', 'numpy', 'pydantic', 'yaml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def templates() -> dict[str, Template]:
    folder = Path(__file__).parents[2] / "ltm_edge" / "overlay" / "scene_templates"
    return {file.stem: parse_template(file.read_bytes()) for file in sorted(folder.glob("*.yaml"))}


CHOICES = {
    "I don't know whether I should keep building AGI.": "initiation",
    "Я не знаю, стоит ли продолжать строить AGI.": "initiation",
    "How do I rename files in Python?": "workbench",
    "Как переименовать файлы в Python?": "workbench",
    "привет, как дела": "hearth",
    "расскажи анекдот": "trickster",
}


@pytest.mark.parametrize("text", CHOICES)
def test_choice_of_a_template(text: str, templates: dict[str, Template]) -> None:
    choice = choose_template(text, templates, detect_language(text, ("en", "ru")))
    assert choice.name == CHOICES[text]
    assert set(choice.scores) == set(templates)
    assert choice == choose_template(text, templates, detect_language(text, ("en", "ru")))


def test_few_shot_requests_find_their_own_template(templates: dict[str, Template]) -> None:
    right = total = 0
    for name, template in templates.items():
        for lang, examples in template.examples.items():
            for example in examples:
                total += 1
                right += choose_template(example.pvq.text, templates, lang).name == name
    assert right >= 0.8 * total


def test_choice_without_likeness_and_by_hints(templates: dict[str, Template]) -> None:
    assert choose_template("!!! 🚀", templates, "en").name == next(iter(templates))
    assert choose_template("!!! 🚀", templates, "en", fallback="mirror").name == "mirror"
    logic = choose_template("!!! 🚀", templates, "en", phase="logic").name
    assert "logic" in templates[logic].phases
    archetype = templates["trickster"].archetypes[0]
    chosen = choose_template("", templates, "ru", archetype=[archetype]).name
    assert archetype in templates[chosen].archetypes
    with pytest.raises(ValueError, match="no templates"):
        choose_template("x", {}, "en")


def test_choice_is_quick_on_long_texts(templates: dict[str, Template]) -> None:
    start = time.process_time()
    choose_template("слово word " * 90_000, templates, "ru")
    assert time.process_time() - start < 2.0 * slowness()
