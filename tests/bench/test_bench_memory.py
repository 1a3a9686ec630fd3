"""`ltm-edge bench memory` at its smallest, and what it counts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ltm_edge.bench import memory as memory_module
from ltm_edge.bench import memory_peers, memory_scenes
from ltm_edge.bench.memory import bench_memory
from ltm_edge.bench.memory_vectors import DIM, clustered
from ltm_edge.cli.main import cli


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "_QUERIES", 20)
    monkeypatch.setattr(memory_scenes, "_SCENES", 20)
    monkeypatch.setattr(memory_scenes, "_WARM", 5)


@pytest.mark.needs_model
@pytest.mark.usefixtures("small")
def test_memory_has_a_row_for_every_index():
    result = CliRunner().invoke(cli, ["bench", "memory", "--sizes", "100", "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [table["vectors"] for table in report["tables"]] == ["clustered vectors", "embeddings of sentences"]
    for table in report["tables"]:
        rows = {row["engine"]: row for row in table["rows"]}
        assert {"numpy", "hnswlib", "usearch", "faiss, flat", "faiss, HNSW"} < set(rows)
        for name in ("ltm-edge, full scan", "ltm-edge, graph", "numpy"):
            assert rows[name]["recall"] >= (0.98 if "graph" in name else 1.0)
            assert rows[name]["query"]["p50"] > 0 and rows[name]["adds_per_s"] > 0
            assert rows[name]["disk"] >= 4 * DIM
        for row in rows.values():
            assert row["query"] or row["note"] == "not installed"
    assert report["add"]["p50"] > 0 and report["scoring"]["p50"] > 0


@pytest.mark.usefixtures("small")
def test_memory_prints_a_table_and_minds_what_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_module, "_REAL", 0)
    monkeypatch.setattr(memory_module, "_TOGETHER", 250)
    arguments = ["bench", "memory", "--sizes", "200,0.3k", "--rounds", "1", "--only", "ltm-edge"]
    assert CliRunner().invoke(cli, arguments).exit_code == 2
    arguments[3] = "200,300"
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "200 clustered" in result.stdout and "300 clustered" in result.stdout
    assert result.stdout.count("ltm-edge, graph") == 2 and "numpy" not in result.stdout
    assert "adding a scene durably" in result.stdout and "measuring" not in result.stdout


@pytest.mark.usefixtures("small")
def test_an_index_that_is_not_installed_or_too_slow_is_a_row(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(memory_module, "_REAL", 0)
    monkeypatch.setattr(memory_peers.importlib, "import_module", missing)
    monkeypatch.setattr(memory_module, "_BATCH", 100)
    report = bench_memory([300], 1, patience=0.0)
    notes = {row.engine: row.note for row in report.tables[0].rows}
    assert notes["hnswlib"] == notes["usearch"] == notes["faiss, flat"] == "not installed"
    assert notes["ltm-edge, graph"].startswith("100 of 300 added")
    assert "not installed" in "\n".join(report.lines())


def test_clusters_are_tight_enough_to_have_neighbours():
    vectors = clustered(1000)
    assert vectors.shape == (1000, DIM) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = np.sort(vectors @ vectors.T, axis=1)
    assert cosines[:, -11].mean() > 0.4 and np.median(cosines[:, :-200]) < 0.1
    np.testing.assert_array_equal(clustered(1000), vectors)
