"""The benchmark of forgetting, end to end on a tiny model."""

import json

import pytest

from benchmarks.forgetting import main


@pytest.mark.slow
def test_a_loose_bound_changes_nothing_and_a_tight_one_leaves_all_adapters_out(model, squad, tmp_path):
    given = ["--model", str(model), "--dtype", "float32", "--data", str(squad), "--out", str(tmp_path / "out")]
    main([*given, "--passages", "3", "--k", "1", "2", "--bounds", "1000", "1e-12"])
    figures = json.loads((tmp_path / "out" / "forgetting.json").read_text())
    assert figures["complete"]
    rows = {(row["question"], row["k"], row["bound"]): row for row in figures["rows"]}
    assert len(rows) == 2 * 2 * 3 + 3
    for (kind, k, bound), row in rows.items():
        assert row["n"] == 3
        assert row["drop"] == pytest.approx(row["f1 without adapters"] - row["f1"])
        if bound == 1000:
            free = rows[kind, k, "no guard"]
            assert (row["f1"], row["part of the strength"], row["left out"]) == (free["f1"], 1, 0)
            assert row["nats at full strength"] > 0
        elif bound != "no guard":
            assert (row["drop"], row["part of the strength"], row["left out"]) == (0, 0, 3)
    assert (tmp_path / "out" / "forgetting.png").stat().st_size
