"""What all reports of benchmarks have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from ltm_edge.bench.channels import ChannelsReport
from ltm_edge.bench.convert import ConvertReport
from ltm_edge.bench.critics import CriticsReport
from ltm_edge.bench.decode import DecodeReport
from ltm_edge.bench.embed import EmbedReport, EmbedRow
from ltm_edge.bench.masks import MaskReport
from ltm_edge.bench.memory import MemoryReport
from ltm_edge.bench.quality import QualityReport
from ltm_edge.bench.recall import RecallReport
from ltm_edge.bench.report import Columns, Report, conditions, load_averages, table, this_machine
from ltm_edge.bench.turn import TurnReport

MACHINE = {"platform": "Some-OS", "cores": 2, "load": [0.5, 0.25, 0.1]}


@dataclass(frozen=True, slots=True)
class Length(Report):
    words: tuple[str, ...]

    def lines(self) -> list[str]:
        columns: Columns[str] = {"word": str, "letters": lambda word: str(len(word))}
        return [table(columns, self.words)]


class Counted(Length):
    def summary(self) -> dict[str, float | None]:
        return {"words": float(len(self.words))}


def test_fields_are_what_json_gets_with_the_summary_behind_them():
    assert Length(("a", "bcd")).to_dict() == {"words": ("a", "bcd")}
    assert list(Counted(("a",)).to_dict().items()) == [("words", ("a",)), ("summary", {"words": 1.0})]


def test_a_table_has_a_column_for_each_head_and_a_line_for_each_row():
    (text,) = Length(("a", "bcd")).lines()
    assert text.splitlines() == ["word  letters", "----  -------", "a           1", "bcd         3"]


def test_the_machine_in_a_line():
    assert conditions(MACHINE) == "Some-OS, 2 cores, load 0.5 0.25 0.1"
    assert conditions(MACHINE, [1.0]) == "Some-OS, 2 cores, load 0.5 0.25 0.1 before and 1.0 after"
    here = this_machine()
    assert here["cores"] >= 1 and len(here["load"]) == len(load_averages())


def test_an_embedding_that_has_no_figures_says_why():
    rows = (EmbedRow("F16, batched", "", 1.5, 120, 3000, 1.0), EmbedRow("other", note="not installed"))
    lines = "\n".join(EmbedReport(MACHINE, 1, 3, [1.0], rows).lines()).splitlines()
    assert lines[5].split() == ["F16,", "batched", "80.0", "12.5", "2000", "1.00000"]
    assert lines[6].split() == ["other", "not", "installed", "–", "–", "–"]


@pytest.mark.parametrize(
    "kind",
    [
        ChannelsReport,
        ConvertReport,
        CriticsReport,
        DecodeReport,
        EmbedReport,
        MaskReport,
        MemoryReport,
        QualityReport,
        RecallReport,
        TurnReport,
    ],
)
def test_every_bench_gives_a_report_with_its_machine(kind: Any):
    assert issubclass(kind, Report) and "machine" in kind.__dataclass_fields__
