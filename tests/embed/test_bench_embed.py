"""`ltm-edge bench embed` at its smallest settings."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from ltm_edge.cli.main import cli

pytestmark = pytest.mark.needs_model


def test_every_way_has_a_row():
    result = CliRunner().invoke(cli, ["bench", "embed", "--rounds", "1", "--texts", "8", "--threads", "1", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    rows = {row["way"]: row for row in report["rows"]}
    assert list(rows)[:4] == ["F16, batched", "F16, one by one", "Q8_0, batched", "Q8_0, one by one"]
    assert all(row["seconds"] > 0 and row["cosine"] > 0.99 for row in list(rows.values())[:4])
    if find_spec("sentence_transformers") is None:
        assert rows["sentence-transformers"]["note"] == "not installed"
    assert report["summary"]["batched_over_one_by_one"] > 0


def test_a_file_of_one_s_own_prints_a_table(demo_path):
    result = CliRunner().invoke(cli, ["bench", "embed", str(demo_path), "--rounds", "1", "--texts", "4"])
    assert result.exit_code == 0, result.output
    assert f"{demo_path.stem}, one by one" in result.stdout
