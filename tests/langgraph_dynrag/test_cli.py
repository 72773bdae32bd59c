"""The command line, run as a user runs it: index, ask, graph, calibrate."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from langgraph_dynrag import Trace
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.translator import Translator
from rag_backbone.cli import build_app
from rag_backbone.errors import ConfigurationError, DynPragError, MissingExtraError
from rag_backbone.loading.causal_lm import CausalLM
from tests.openai_server import serving
from tests.tiny import tiny_folder

QUESTION = "Who built the bridge in the capital?"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random model in a folder, as `--model` takes it."""
    folder = tiny_folder(tmp_path_factory.mktemp("model"))
    assert CausalLM.from_pretrained(str(folder)).engine is not None
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    notes = tmp_path_factory.mktemp("notes")
    (notes / "bridge.md").write_text("# Bridge\n\nThe Cooper's Bridge was built by the mason Aldous Wray.")
    (notes / "river.txt").write_text("The river Tamsin crosses Brannoch.")
    folder = notes / "index"
    result = run("index", str(notes), "--index", str(folder))
    assert "2 files added" in result.stdout
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(build_app(), list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_indexing_again_reports_that_nothing_changed(index):
    counts = json.loads(run("index", str(index.parent), "--index", str(index), "--json").stdout)
    assert counts == {
        "added": 0,
        "changed": 0,
        "removed": 0,
        "unchanged": 2,
        "embedded": 0,
        "chunks": 2,
        "skipped": [],
        "notes": [],
    }


def test_what_was_indexed_is_listed_and_forgotten(tmp_path):
    notes, into = tmp_path / "notes", ("--index", str(tmp_path / "index"))
    notes.mkdir()
    (notes / "bridge.md").write_text("# Bridge\n\nAldous Wray built it.")
    (notes / "river.txt").write_text("The river Tamsin crosses Brannoch.")
    assert "empty" in run("index", "--list", *into).stdout
    run("index", str(notes), *into)
    assert run("index", "--list", *into).stdout == f"{notes}: 2 files, 2 chunks\n"
    [listed] = json.loads(run("index", "--list", "--json", *into).stdout)
    assert listed == {"name": str(notes), "kind": "files", "items": 2, "chunks": 2}
    assert "1 removed" in run("index", "--forget", "river.txt", *into).stdout
    (notes / "bridge.md").unlink()
    (notes / "river.txt").unlink()
    assert json.loads(run("index", str(notes), "--json", *into).stdout)["removed"] == 1
    with pytest.raises(ConfigurationError, match="nothing in the index came from"):
        run("index", "--forget", str(notes), *into)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "nothing was given; give one of FOLDER"), (["notes", "--list"], "FOLDER and --list was given")],
)
def test_indexing_listing_and_forgetting_exclude_each_other(tmp_path, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        run("index", *arguments, "--index", str(tmp_path / "index"))


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


def test_an_unknown_preset_lists_the_known_ones(index):
    result = run("ask", QUESTION, "--preset", "flair", code=2)
    for name in ("no_retrieval", "flare", "dragin", "etc"):
        assert name in result.output


def test_the_process_says_one_line_and_exits_with_two(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "rag_backbone.cli", "index", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: there is no file or folder {tmp_path / 'nowhere'}"
    assert not (tmp_path / ".dynprag").exists()


def test_the_graph_is_drawn_without_a_model():
    drawn = run("graph").stdout
    assert drawn.startswith("graph TD;") or "graph TD;" in drawn
    for name in ("begin", "generate", "monitor", "retrieve", "reformulate", "resume"):
        assert name in drawn


def injected(told):
    (event,) = [e for e in told["trace"] if e["type"] == "injection"]
    return event


def prompt_tokens(told):
    return max(e["prompt_tokens"] for e in told["trace"] if e["type"] == "draft")


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
    with pytest.raises(ConfigurationError, match="missing='translate' needs a translator"):
        run("ask", QUESTION, *options, "--missing", "translate")


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


@pytest.mark.parametrize("option", [("--missing", "train"), ("--translator", "embedded")])
def test_options_of_adapters_are_refused_where_evidence_stays_in_the_prompt(option, index, model):
    with pytest.raises(ConfigurationError, match=f"{option[0]}: only used with --injection"):
        run("ask", QUESTION, "--index", str(index), "--model", str(model), *option)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    file = tmp_path_factory.mktemp("questions") / "q.jsonl"
    lines = [{"question": f"Who built bridge {i} in the capital?", "answers": ["Aldous Wray"]} for i in range(4)]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return file


def test_a_calibrated_threshold_is_saved_and_used(index, model, questions, tmp_path):
    out = tmp_path / "mine.json"
    common = ("--model", str(model), "--index", str(index))
    result = run("calibrate", str(questions), "--out", str(out), "--rate", "0.5", *common, "--preset", "dragin")
    assert result.stdout.startswith("dragin with ")
    assert f"--preset {out}" in result.stderr
    threshold = json.loads(out.read_text("utf-8"))["calibration"]["threshold"]
    told = json.loads(run("ask", QUESTION, *common, "--preset", str(out), "--max-tokens", "30", "--json").stdout)
    assert {e["threshold"] for e in told["trace"] if e.get("threshold") is not None} == {threshold}


def test_what_was_found_is_printed_even_if_it_cannot_be_saved(index, model, questions, tmp_path):
    (tmp_path / "p.json").mkdir()
    common = ("--model", str(model), "--index", str(index), "--rate", "0.5", "--preset", "dragin")
    result = CliRunner().invoke(build_app(), ["calibrate", str(questions), "--out", str(tmp_path / "p.json"), *common])
    assert isinstance(result.exception, OSError)
    assert result.stdout.startswith("dragin with ")


@pytest.mark.parametrize(
    ("given", "preset"),
    [
        (("--rate", "0.5", "--preset", "dragin"), "dragin"),
        (("--cost", "9", "--points", "3", "--retriever", "bm25"), "flare"),
    ],
)
def test_what_was_found_is_printed_as_json_and_no_threshold_is_named_twice(
    index, model, questions, tmp_path, given, preset
):
    options = ("--model", str(model), "--index", str(index), "-o", str(tmp_path / "p.json"), "--limit", "2", "--json")
    told = json.loads(run("calibrate", str(questions), *options, *given).stdout)
    found = told["calibration"]
    assert (told["preset"], found["questions"]) == (preset, 2)
    assert (found["chosen"]["f1"] is not None) is ("--cost" in given)
    thresholds = [found["chosen"]["threshold"], *(p["threshold"] for p in found["points"])]
    assert len(thresholds) == len(set(thresholds))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rate", "0.5", "--out", "p.txt"), "ends in .json"),
        (("--out", "p.json"), "neither of rate and cost"),
        (("--rate", "2", "--out", "p.json"), "rate is 2"),
    ],
)
def test_mistakes_of_a_calibration_are_explained(arguments, message, index, questions):
    with pytest.raises(ConfigurationError, match=message):
        run("calibrate", str(questions), "--index", str(index), *arguments)


def test_only_methods_with_a_threshold_are_offered(questions):
    result = run("calibrate", str(questions), "--out", "p.json", "--preset", "single", code=2)
    assert "dragin" in result.output
    assert "fixed_sentence" not in result.output.split("dragin")[0]


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
        (("--base-url", "http://localhost:1/v1"), "needs --model NAME"),
        (("--base-url", "localhost:8000", "--model", "m"), "http:// or https://"),
        (("--base-url", "http://:8000", "--model", "m"), "http:// or https://"),
        (("--base-url", "http://me:pass@localhost/v1", "--model", "m"), "holds a user or a password"),
        (("--base-url", "https://api.openai.com/v1", "--model", "gpt-x"), r"\$OPENAI_API_KEY is not set"),
        (
            ("--base-url", "http://localhost:1/v1", "--model", "m", "--injection", "combined", "--translator", "t"),
            "leave out --base-url or --translator",
        ),
        (("--model", " "), "--model is empty"),
    ],
)
def test_a_server_that_cannot_be_asked_is_refused_in_words(options, message, index, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=message) as refused:
        run("ask", QUESTION, "--index", str(index), *options)
    assert "pass@" not in str(refused.value)


def test_the_missing_client_of_a_server_is_named(index, monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dynprag\[openai\]'"):
        run("ask", QUESTION, "--index", str(index), "--base-url", "http://localhost:1/v1", "--model", "m")


def test_quiet_before_or_after_the_command_prints_the_answer_alone(index, model):
    options = ("ask", QUESTION, "--model", str(model), "--index", str(index), "--preset", "single", "--max-tokens", "8")
    before, after = run("-q", *options), run(*options, "-q")
    assert before.stdout == after.stdout
    assert before.stderr == after.stderr == ""
    assert len(before.stdout.splitlines()) == 1 or before.stdout.count("[1]") == 0


@pytest.mark.parametrize("options", [("--k", "0"), ("--k", "-3"), ("--injection", "parametric", "--max-tokens", "0")])
def test_numbers_out_of_range_are_refused(options, index, model, tmp_path):
    common = ["ask", QUESTION, "--index", str(index), "--model", str(model), "--store", str(tmp_path / "s")]
    result = CliRunner().invoke(build_app(), [*common, *options])
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit | DynPragError)
