"""The benchmark of what translators learn, end to end on a tiny model."""

import json

import pytest

from benchmarks.translator_learning import _history, main
from llamaindex_prag.translator.translator import Translator
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    rows = [{"title": f"Ferry {i}", "text": f"The ferry {i} was built in {1900 + i} in Vold."} for i in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.slow
def test_both_kinds_are_trained_evaluated_on_another_file_and_kept(model, squad, corpus, tmp_path):
    given = [
        "--model",
        str(model),
        "--corpus",
        str(corpus),
        "--data",
        str(squad),
        "--out",
        str(tmp_path / "out"),
        "--steps",
        "2",
        "--documents",
        "2",
        "--questions",
        "1",
        "--validate-every",
        "1",
        "--validation",
        "3",
        "--run",
        "shared:1e-2",
        "--run",
        "shared:1e-3",
        "--run",
        "dyprag:1e-3",
        "--keep",
        str(tmp_path / "kept"),
    ]
    main([*given, "--max-minutes", "0"])
    assert json.loads((tmp_path / "out" / "translator_learning.json").read_text())["complete"] is False
    main(given)
    figures = json.loads((tmp_path / "out" / "translator_learning.json").read_text())
    assert (figures["complete"], figures["passages"]) == (True, 4)
    shared = [run for run in figures["runs"] if run["kind"] == "shared"]
    assert [run["learning_rate"] for run in shared] == [1e-2, 1e-3]
    best = min(shared, key=lambda run: min(e["own"] for e in run["history"]))
    assert figures["shared"]["learning_rate"] == best["learning_rate"]
    for kind in ("shared", "dyprag"):
        found = figures[kind]
        assert found["other - own"]["mean"] == pytest.approx(found["other"] - found["own"])
    assert figures["dyprag - shared"]["mean"] == pytest.approx(figures["dyprag"]["own"] - figures["shared"]["own"])
    kept = Translator.load(tmp_path / "kept", CausalLM.from_pretrained(str(model), dtype="float32"))
    assert kept.record["plan"]["learning_rate"] == best["learning_rate"]
    assert kept.parameters == figures["shared"]["parameters"]
    main(
        [
            "--model",
            str(model),
            "--data",
            str(squad),
            "--out",
            str(tmp_path / "again"),
            "--trained",
            str(tmp_path / "kept"),
        ]
    )
    again = json.loads((tmp_path / "again" / "translator_learning.json").read_text())
    assert again["shared"]["own"] == pytest.approx(figures["shared"]["own"])
    with pytest.raises(SystemExit):
        main(["--data", str(squad), "--run", "shared:1e-3", "--trained", str(tmp_path / "kept")])


def test_the_history_continues_the_counts_of_the_earlier_training():
    first = {"history": [{"step": 0, "seconds": 0.0, "own": 6.0}, {"step": 40, "seconds": 10.0, "own": 4.0}]}
    then = {
        "history": [{"step": 0, "seconds": 0.0, "own": 4.0}, {"step": 8, "seconds": 2.0, "own": 3.0}],
        "start": first,
    }
    assert [(e["step"], e["seconds"], e["own"]) for e in _history(then)] == [
        (0, 0.0, 6.0),
        (40, 10.0, 4.0),
        (48, 12.0, 3.0),
    ]


@pytest.mark.parametrize(("run", "message"), [("other:1e-3", "known kinds"), ("shared:fast", "not a learning rate")])
def test_an_invalid_run_is_refused_before_anything_is_loaded(run, message):
    with pytest.raises(ConfigurationError, match=message):
        main(["--corpus", "none", "--data", "none", "--run", run])
