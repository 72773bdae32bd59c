"""`dynprag train-translator` on a tiny model in a folder."""

import json
from functools import partial

import pytest
from typer.testing import CliRunner

from llamaindex_prag.errors import TranslatorHealthError
from llamaindex_prag.translator.training import health
from rag_backbone.cli import build_app
from tests.llamaindex_prag.test_cli import TEXT


def test_a_translator_is_trained_from_json_lines_and_resumes(model_folder, tmp_path, monkeypatch):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "translator"
    rows = [{"title": f"Ferry {i}", "text": TEXT.replace("1974", str(1900 + i))} for i in range(12)]
    corpus.write_text("\n".join(map(json.dumps, rows)))
    call = [
        "train-translator",
        str(corpus),
        "--out",
        str(out),
        "--model",
        str(model_folder),
        "--steps",
        "2",
        "--documents",
        "2",
        "--questions",
        "1",
        "--validation",
        "3",
        "--validate-every",
        "1",
        "--no-health-check",
        "--json",
    ]
    stopped = CliRunner().invoke(build_app(), [*call, "--max-minutes", "0"])
    assert json.loads(stopped.stdout)["steps"] == 0
    done = json.loads(CliRunner().invoke(build_app(), call).stdout)
    assert (done["steps"], done["ended"]) == (2, "all 2 steps are done")
    assert [e["step"] for e in done["history"]] == [0, 1, 2]
    assert sorted(p.name for p in out.iterdir()) == ["translator.json", "translator.safetensors"]
    further = [*call[:3], str(tmp_path / "further"), *call[4:], "--start", str(out)]
    first = json.loads(CliRunner().invoke(build_app(), further).stdout)["history"][0]
    best = min(done["history"], key=lambda e: e["own"])
    assert first["own"] == pytest.approx(best["own"], abs=1e-5)
    assert first["base"] == pytest.approx(best["base"], abs=1e-5)
    record = json.loads((tmp_path / "further" / "translator.json").read_text())["record"]
    assert record["start"]["history"] == done["history"][: best["step"] + 1]
    refused = CliRunner().invoke(build_app(), [*further, "--kind", "shared"])
    assert (refused.exit_code, "leave --kind" in refused.output) == (2, True)
    over = CliRunner().invoke(build_app(), [*call, "--start", str(out)])
    assert (over.exit_code, "name another" in over.output) == (2, True)
    monkeypatch.setattr(health, "HealthCheck", partial(health.HealthCheck, documents=2, train=8, unseen=16))
    untested = CliRunner().invoke(build_app(), [*call[:3], str(tmp_path / "new"), *call[4:-2], "--needle-steps", "1"])
    assert isinstance(untested.exception, TranslatorHealthError)
    assert not (tmp_path / "new").exists()
    few = CliRunner().invoke(build_app(), [*call[:1], str(corpus), *call[2:], "--validation", "9"])
    assert few.exit_code != 0


def test_a_translator_learns_to_produce_parametrized_adapters(run, model_folder, tmp_path):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "translator"
    rows = [{"title": f"Ferry {i}", "text": TEXT.replace("1974", str(1900 + i))} for i in range(8)]
    corpus.write_text("\n".join(map(json.dumps, rows)))
    assert json.loads(run("parametrize", corpus, "--json"))["trained"] == 8
    call = [
        "train-translator",
        str(corpus),
        "--out",
        str(out),
        "--model",
        str(model_folder),
        "--steps",
        "2",
        "--documents",
        "2",
        "--kind",
        "dyprag",
        "--validation",
        "2",
        "--validate-every",
        "1",
        "--imitate",
        str(tmp_path / "store"),
        "--no-health-check",
        "--json",
    ]
    result = CliRunner().invoke(build_app(), call)
    assert json.loads(result.stdout)["ended"] == "all 2 steps are done", result.exception
    record = json.loads((out / "translator.json").read_text())
    assert '"objective": "imitate"' in json.dumps(record)
