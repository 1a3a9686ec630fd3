"""Reading requests: blocks of several lines, odd encodings, lines that are too long."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ltm_edge.cli import chat_input
from ltm_edge.cli.chat_input import Block, decode, piped_lines


def feed(*lines: str) -> list[str | None]:
    block = Block()
    return [block.feed(line) for line in lines]


@pytest.mark.parametrize(
    ("lines", "results"),
    [
        (["hello"], ["hello"]),
        (['"""one', "two", 'three"""'], [None, None, "one\ntwo\nthree"]),
        (['"""', "one", "", "  two", '"""'], [None, None, None, None, "one\n\n  two"]),
        (['"""one"""', "two"], ["one", "two"]),
        (['  """one', 'two"""  '], [None, "one\ntwo"]),
        (['"""', '"""'], [None, ""]),
        (["one\\", "two\\", "three"], [None, None, "one\ntwo\nthree"]),
        (["a path C:\\\\"], ["a path C:\\\\"]),
        (["one\\", '"""two'], [None, 'one\n"""two']),
        (['"""one\\', 'two"""'], [None, "one\\\ntwo"]),
        (['say """ this'], ['say """ this']),
        (["/bye"], ["/bye"]),
    ],
)
def test_blocks(lines: list[str], results: list[str | None]) -> None:
    assert feed(*lines) == results


def test_an_open_block_can_be_ended_by_the_end_of_input() -> None:
    block = Block()
    assert block.feed('"""one') is None and block.open
    assert block.feed("two") is None
    assert block.flush() == "one\ntwo" and not block.open


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\n\r\ntwo\r\n", ["one", "", "two"]),
        ("\ufeffпривет\nмир\n".encode(), ["привет", "мир"]),
        (b"a\x00b\n", ["a\x00b"]),
        ("a\u2028b\x85c\x0bd\n".encode(), ["a\u2028b\x85c\x0bd"]),
    ],
)
def test_piped_lines(data: bytes, lines: list[str]) -> None:
    assert list(piped_lines(io.BytesIO(data))) == lines


def test_a_line_that_is_too_long_costs_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_input, "MAX_LINE", 10)
    data = b"a" * 10 + b"\n" + b"b" * 3_000_000 + b"\nlast\n"
    assert list(piped_lines(io.BytesIO(data))) == ["a" * 10, None, "last"]


@pytest.mark.parametrize("code_page", ["cp1251", "cp866", "koi8-r"])
def test_a_code_page_is_read_where_utf8_fails(monkeypatch: pytest.MonkeyPatch, code_page: str) -> None:
    monkeypatch.setattr(chat_input, "_code_pages", lambda: [code_page])
    assert decode("привет, мир".encode(code_page)) == "привет, мир"
    assert decode("привет".encode()) == "привет"


def test_powershell_files_are_read() -> None:
    assert decode("привет".encode("utf-16")) == "привет"


def test_what_cannot_be_read_is_replaced_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chat_input, "_code_pages", lambda: ["ascii", "no-such-code-page"])
    assert decode(b"a\xffb") == "a\ufffdb"
    assert "not UTF-8" in capsys.readouterr().err


def test_history_is_kept_for_the_user_only_and_may_fail(tmp_path: Path) -> None:
    path = tmp_path / "home" / "chat_history"
    chat_input._history(path).append_string("привет")
    assert path.stat().st_mode & 0o077 == 0
    again = chat_input._history(path)
    assert list(again.load_history_strings()) == ["привет"]
    path.unlink()
    path.mkdir()
    again.append_string("lost, but no error")
    assert list(again.load_history_strings()) == []
    (tmp_path / "file").write_text("")
    chat_input._history(tmp_path / "file" / "history").append_string("kept in memory")
    chat_input._history(None).append_string("kept in memory")
