"""`dynprag ask`."""

import json

import pytest
from typer.testing import CliRunner

from langgraph_dynrag import Trace
from llamaindex_prag.errors import TranslatorError
from llamaindex_prag.store.lmdb_store import LMDBStore
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.translator import Translator
from rag_backbone.cli import build_app
from rag_backbone.engine.engine import Engine
from rag_backbone.errors import ConfigurationError, DynPragError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.commands.command import QUESTION, injected, prompt_tokens, run
from tests.openai_server import serving


def test_the_answer_streams_to_stdout_and_searches_to_stderr(index, model):
    options = ("--model", str(model), "--index", str(index), "--preset", "single", "--max-tokens", "30")
    told = json.loads(run("ask", QUESTION, *options, "--json").stdout)
    result = run("ask", QUESTION, *options)
    assert told["answer"] in result.stdout
    assert "[1] Bridge" in result.stdout
    assert f"searched: {QUESTION}" in result.stderr
    assert "searched" not in result.stdout
    assert run("ask", QUESTION, *options, "--quiet").stdout == told["answer"] + "\n"
    assert told["question"] == QUESTION
    assert told["counts"]["retrievals"] == 1


@pytest.mark.parametrize("form", [["--json"], ["--quiet"], []])
def test_a_question_with_bytes_that_are_no_utf_8_is_asked(index, model, form):
    options = ("--model", str(model), "--index", str(index), "--preset", "single", "--max-tokens", "5", *form)
    out = run("ask", "Who built the br\udcfccke?", *options).stdout  # as Python reads such an argument
    assert out.encode()
    if "--json" in form:
        assert json.loads(out)["question"] == "Who built the br\ufffdcke?"


def test_preset_threshold_budgets_and_k_are_used(index, model, tmp_path):
    trace = tmp_path / "trace.html"
    given = ("--preset", "flare", "--threshold", "1.0", "--max-retrievals", "2", "--k", "1", "--retriever", "bm25")
    result = run("ask", QUESTION, "--model", str(model), "--index", str(index), *given, "--trace", str(trace), "--json")
    told = json.loads(result.stdout)
    searches = [e for e in told["trace"] if e["type"] == "retrieval"]
    assert len(searches) == 2
    assert max(len(e["documents"]) for e in searches) == 1
    assert any(e["type"] == "budget" and e["which"] == "retrievals" for e in told["trace"])
    assert "<html" in trace.read_text("utf-8")


def test_no_retrieval_needs_no_index(model, tmp_path):
    options = ("--model", str(model), "--index", str(tmp_path / "none"), "--preset", "no_retrieval")
    told = json.loads(run("ask", QUESTION, *options, "--max-tokens", "10", "--json").stdout)
    assert told["sources"] == []
    assert told["answer"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ask", QUESTION, "--index", "/nowhere/at/all"), "is empty; fill it first: dynprag index"),
        (("ask", QUESTION, "--preset", "no_retrieval", "--threshold", "0.5"), "has no threshold"),
        (("ask", QUESTION, "--threshold", "7"), "7"),
        (("ask", QUESTION, "--max-tokens", "0"), "budget tokens is 0"),
        (("index", "/nowhere/at/all"), "no file or folder"),
    ],
)
def test_mistakes_are_explained(arguments, message, index, tmp_path):
    if arguments[0] == "ask" and "--index" not in arguments:
        arguments = (*arguments, "--index", str(index))
    elif arguments[0] == "index":
        arguments = (*arguments, "--index", str(tmp_path / "new"))
    else:
        arguments = tuple(a.replace("/nowhere/at/all", str(tmp_path / "new")) for a in arguments)
    with pytest.raises(DynPragError, match=message):
        run(*arguments)


def test_an_empty_question_is_refused(model):
    with pytest.raises(ConfigurationError, match="the question is empty"):
        run("ask", "  ", "--model", str(model), "--preset", "no_retrieval")


def test_an_answer_from_the_weights_has_nothing_of_the_passage_in_its_prompt(index, model, tmp_path):
    options = ("--model", str(model), "--index", str(index), "--store", str(tmp_path / "adapters"), "--max-tokens", "8")
    told = {
        where: json.loads(run("ask", QUESTION, *options, "--injection", where, "--json").stdout)
        for where in ("parametric", "combined")
    }
    parametric, combined = (injected(told[where]) for where in ("parametric", "combined"))
    assert parametric["trained"] > 0
    assert combined["trained"] == 0  # the store has them
    assert len(parametric["in_weights"]) == 1  # one passage acts
    assert prompt_tokens(told["parametric"]) < prompt_tokens(told["combined"])
    assert run("ask", QUESTION, *options, "--injection", "parametric", "--quiet").stdout == (
        told["parametric"]["answer"] + "\n"
    )
    assert parametric["routing"] is not None
    for route in ("retrieval", "ask"):
        given = ("--injection", "parametric", "--route", route, "--json")
        routed = injected(json.loads(run("ask", QUESTION, *options, *given).stdout))
        assert (routed["routing"] is None) == (route == "retrieval")
        assert set(routed["routing"] or routed["in_weights"]) >= set(routed["in_weights"])


def test_several_passages_act_together_as_the_options_say(index, model, tmp_path, monkeypatch):
    options = ("--model", str(model), "--index", str(index), "--store", str(tmp_path / "adapters"), "--max-tokens", "8")
    options = (*options, "--injection", "parametric", "--max-active", "2", "--route", "retrieval", "--json")
    admitted, admit = [], Engine._admit
    monkeypatch.setattr(Engine, "_admit", lambda self, asked: admitted.append(asked.adapters) or admit(self, asked))
    for given, check in (
        (("--merge", "sum"), lambda made: set(made.weights) == {1.0}),
        ((), lambda made: set(made.weights) == {0.5}),
        (("--ensemble", "product"), lambda made: made.kind == "product" and len(made) == 2),
    ):
        told = injected(json.loads(run("ask", QUESTION, *options, *given).stdout))
        assert len(told["in_weights"]) == 2
        assert check(admitted[-1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--merge", "sum"), "--merge: combines the adapters of several passages, .*add --max-active 3"),
        (("--ensemble", "product", "--max-active", "1"), "--ensemble: combines"),
        (("--max-active", "9"), "max_active is 9; it must be from 1 to 8"),
        (("--max-active", "8", "--merge", "shared_once", "--change", "start=ab"), "must be from 1 to 7"),
        (("--max-active", "2", "--merge", "sum", "--ensemble", "mixture"), "leave out one of the two"),
        (("--max-active", "2", "--merge", "shared_once"), "the recipe 'distill' has no start"),
        (("--max-active", "2", "--merge", "shared_once", "--change", "start=ab"), "the store does not hold it"),
        (("--max-active", "2", "--ensemble", "mixture", "--preset", "dragin"), "trigger=.* needs attention"),
        (
            ("--max-active", "2", "--ensemble", "mixture", "--base-url", "http://localhost:1/v1"),
            "a server answers with one",
        ),
    ],
)
def test_passages_that_cannot_be_combined_so_are_refused_before_the_model_is_loaded(
    given, message, index, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(CausalLM, "from_pretrained", lambda name: pytest.fail(f"{name} was loaded"))
    options = ("--model", str(model), "--index", str(index), "--injection", "parametric")
    for store in (tmp_path / "none", tmp_path / "other"):
        with pytest.raises(DynPragError, match=message):
            run("ask", QUESTION, *options, "--store", str(store), *given)
        LMDBStore(tmp_path / "other", model="0" * 64).close()


def test_an_unknown_merge_or_ensemble_lists_the_known_ones(index, model):
    for option, known in (("--merge", "shared_once"), ("--ensemble", "mixture")):
        assert known in run("ask", QUESTION, "--index", str(index), option, "average", code=2).output


def test_an_answer_can_come_from_translated_adapters(index, model, tmp_path):
    lm = CausalLM.from_pretrained(model)
    Translator(lm, TranslatorConfig.of(lm, width=16, heads=2)).save(tmp_path / "translator")
    options = ("--model", str(model), "--index", str(index), "--store", str(tmp_path / "adapters"), "--max-tokens", "8")
    options = (*options, "--injection", "parametric", "--json")
    told = [
        json.loads(run("ask", QUESTION, *options, "--translator", str(tmp_path / "translator")).stdout) for _ in "ab"
    ]
    assert [bool(injected(t)["translated"]) for t in told] == [True, False]  # representations are stored
    assert told[0]["answer"] == told[1]["answer"]
    assert injected(told[0])["trained"] == 0


def test_adapters_of_a_changed_recipe_are_found_with_the_same_options(index, model, tmp_path, monkeypatch):
    folder = ("--store", str(tmp_path / "adapters"))
    changes = ("--recipe", "distill", "--change", "acts_from=answer", "--change", "epochs=1", "--change", "phrases=4")
    options = ("--model", str(model), "--index", str(index), *folder, "--max-tokens", "8", "--injection", "parametric")
    first = run("ask", QUESTION, *options, *changes, "--missing", "train", "--json")
    assert injected(json.loads(first.stdout))["trained"] > 0
    told = injected(json.loads(run("ask", QUESTION, *options, *changes, "--json").stdout))
    assert (told["trained"], len(told["in_weights"])) == (0, 1)
    monkeypatch.setattr(CausalLM, "from_pretrained", lambda name: pytest.fail(f"{name} was loaded"))
    held = "--recipe distill --change epochs=1 --change phrases=4 --change acts_from=answer"
    for other in ((), ("--recipe", "prag"), (*changes, "--change", "rank=2")):
        with pytest.raises(ConfigurationError, match=f"were trained with {held}\\. Give .* or --missing train"):
            run("ask", QUESTION, *options, *other)
    with pytest.raises(ConfigurationError, match="there is no recipe 'other'"):
        run("ask", QUESTION, *options, "--recipe", "other")
    with pytest.raises(ConfigurationError, match="leave out --recipe and --change"):
        run("ask", QUESTION, *options, *changes[:2], "--translator", str(tmp_path))


def test_translating_without_a_translator_is_refused_before_the_model_is_loaded(index, model, tmp_path, monkeypatch):
    monkeypatch.setattr(CausalLM, "from_pretrained", lambda name: pytest.fail(f"{name} was loaded"))
    options = ("--model", str(model), "--index", str(index), "--injection", "parametric")
    with pytest.raises(ConfigurationError, match=r"needs a translator: --translator FOLDER. No translator is shipped"):
        run("ask", QUESTION, *options, "--missing", "translate")
    with pytest.raises(TranslatorError, match="there is no translator in embedded"):
        run("ask", QUESTION, *options, "--translator", "embedded")


def test_any_method_can_put_what_it_finds_into_the_weights(index, model, tmp_path):
    """The command line can do what the graph can: a method that retrieves again, limits, and a trace beside it."""
    options = (
        "--model",
        str(model),
        "--index",
        str(index),
        "--store",
        str(tmp_path / "adapters"),
        "--max-tokens",
        "24",
    )
    page = tmp_path / "trace.html"
    limits = ("--max-seconds", "60", "--max-retrievals", "2", "--trace", str(page), "--json")
    told = json.loads(
        run("ask", QUESTION, *options, "--preset", "fixed_sentence", "--injection", "combined", *limits).stdout
    )
    kinds = [e["type"] for e in told["trace"]]
    assert 1 <= kinds.count("retrieval") <= 2
    assert kinds.count("injection") == kinds.count("retrieval")
    assert page.exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--missing", "train"),
        ("--translator", "folder"),
        ("--store", "adapters"),
        ("--route", "ask"),
        ("--max-active", "2"),
        ("--merge", "sum"),
        ("--ensemble", "mixture"),
        ("--recipe", "prag"),
        ("--change", "rank=2"),
    ],
)
def test_options_of_adapters_are_refused_where_evidence_stays_in_the_prompt(option, index, model):
    with pytest.raises(ConfigurationError, match=f"{option[0]}: only used with --injection"):
        run("ask", QUESTION, "--index", str(index), "--model", str(model), *option)


def test_a_missing_preset_file_says_how_to_make_one(index, tmp_path):
    with pytest.raises(ConfigurationError, match="create one: dynprag calibrate"):
        run("ask", QUESTION, "--index", str(index), "--preset", str(tmp_path / "none.json"))


@pytest.mark.parametrize("question", ["", " ", "\n\t", "\u3000", "\u200b\ufeff"])
def test_a_blank_question_is_refused_before_the_index_is_looked_for(question, tmp_path):
    for where in ("context", "parametric"):
        with pytest.raises(ConfigurationError, match="the question is empty"):
            run("ask", question, "--index", str(tmp_path / "none"), "--injection", where)


def test_a_question_is_answered_by_a_server(index, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    with serving("It was built by Aldous Wray. So the answer is Aldous Wray.") as server:
        options = ("--base-url", server.url, "--model", "base", "--index", str(index), "--preset", "single")
        told = json.loads(run("ask", QUESTION, *options, "--json").stdout)
        assert "Aldous Wray" in told["answer"]
        assert {e["type"] for e in told["trace"]} >= {"question", "retrieval", "draft"}
        assert server.asked()[0]["model"] == "base"
        with pytest.raises(ConfigurationError, match="has no model 'other'; it has base"):
            run("ask", QUESTION, *options[:2], "--model", "other", *options[4:])


def test_the_json_of_an_answer_makes_its_trace_again(index, model):
    told = json.loads(
        run(
            "ask",
            QUESTION,
            "--model",
            str(model),
            "--index",
            str(index),
            "--preset",
            "single",
            "--max-tokens",
            "8",
            "--json",
        ).stdout
    )
    assert Trace.from_state(told).to_dict() == told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--k", "0"), "--k"),
        (("--k", "-3"), "--k"),
        (("--injection", "parametric", "--store", "adapters", "--max-tokens", "0"), "tokens is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message, index, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(build_app(), ["ask", QUESTION, "--index", str(index), "--model", str(model), *options])
    assert isinstance(result.exception, SystemExit | DynPragError)
    assert message in f"{result.output}{result.exception}"


@pytest.mark.parametrize("where", ["context", "parametric"])
def test_a_missing_index_is_reported_before_a_model_is_loaded(where, tmp_path):
    nowhere = ("--index", str(tmp_path / "none"), "--model", str(tmp_path / "no-model"))
    with pytest.raises(DynPragError, match="none"):
        run("ask", QUESTION, *nowhere, "--injection", where)
