"""Results that go into files, and results as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ltm_edge.cli.outputs import check_writable, json_text, write_file
from ltm_edge.errors import InputError


def test_what_json_has_no_number_for_becomes_null():
    text = json_text({"a": (math.nan, 1.5, None), "b": [{"c": math.inf}, "NaN", True], "d": -math.inf})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, 1.5, None],
        "b": [{"c": None}, "NaN", True],
        "d": None,
    }


def test_a_place_that_can_not_be_written_is_refused_at_once(tmp_path: Path):
    for path in (None, Path("-"), tmp_path / "new.json"):
        check_writable(path)
    with pytest.raises(InputError, match="a directory"):
        check_writable(tmp_path)
    with pytest.raises(InputError, match="its folder does not exist"):
        check_writable(tmp_path / "none" / "new.json")


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "result.txt"
    path.write_text("before")
    write_file(path, "воля\n")
    assert path.read_text(encoding="utf-8") == "воля\n"
    with pytest.raises(InputError, match="can't be written"):
        write_file(tmp_path / "none" / "x", "")
