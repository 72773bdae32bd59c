"""The presets that are compared, their names, and those that a model cannot run."""

from dataclasses import replace

import pytest

from langgraph_dynrag import AnswerPrompt, get_preset
from langgraph_dynrag.evaluation.methods import make_methods, named_presets
from langgraph_dynrag.evaluation.questions import EvaluationQuestion, Paragraph
from langgraph_dynrag.presets.file import CalibratedFor, PresetFile
from langgraph_dynrag.triggers import TokenProbability
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever

ASKED = (EvaluationQuestion("1", "Who built the bridge?", ("Wray",)),)
PLAIN = {"prompt": AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=())}


def made(model, presets=(), questions=ASKED, *, retriever=None, long_context=10, **options):
    searched = WatchedRetriever() if retriever is None else retriever
    wanted = named_presets(presets)
    return make_methods(model, searched, questions, wanted, long_context=long_context, server=None, options=options)


def test_presets_are_named_by_what_was_asked_for(tmp_path):
    file = PresetFile("flare", "2wikimultihopqa", "paper", TokenProbability(0.4), CalibratedFor("m", "f", "p"))
    path = file.write(tmp_path / "mine.json")
    found = named_presets(["flare", "flare@0.3", str(path), get_preset("dragin", bundle="reference"), "long_context"])
    assert list(found) == ["flare", "flare@0.3", "mine", "dragin_reference"]
    assert found["flare@0.3"].settings["trigger"] == TokenProbability(0.3)
    assert found["mine"].settings["trigger"] == TokenProbability(0.4)
    assert list(named_presets("etc")) == ["etc"]
    assert list(named_presets({"low": "flare@0.1", "high": "flare@0.9"})) == ["low", "high"]


@pytest.mark.parametrize(
    ("presets", "message"),
    [
        (["flair"], "there is no preset 'flair'.*flare"),
        (["flare@much"], "has the threshold 'much'; a number is needed"),
        (["single@0.3"], "Once"),
        (["flare", get_preset("flare")], "two presets are called 'flare'; give each a name"),
        ({"long_context": "flare"}, "is the name of a baseline"),
        ({"single": "flare"}, "'single' is the name of a baseline"),
    ],
)
def test_what_is_no_preset_is_refused(presets, message):
    with pytest.raises(ConfigurationError, match=message):
        named_presets(presets)


def test_the_baselines_are_always_there(chat):
    assert [m.name for m in made(chat, ["single", "flare"])] == ["no_retrieval", "single", "long_context", "flare"]
    assert [m.name for m in made(chat, ["flare"], long_context=0)] == ["no_retrieval", "single", "flare"]


def test_a_preset_that_the_model_cannot_run_says_why_and_the_others_run():
    methods = {m.name: m for m in made(ScriptedChatModel(replies=[]), ["dragin", "self_rag", "flare"], **PLAIN)}
    assert "attention" in methods["dragin"].problem
    assert "LocalChatModel" in methods["self_rag"].problem
    assert [n for n, m in methods.items() if m.problem is None] == ["no_retrieval", "single", "long_context", "flare"]


def test_an_option_that_is_wrong_for_any_method_is_refused(chat):
    with pytest.raises(ConfigurationError, match="k is 0"):
        made(chat, ["flare"], k=0)


def test_long_context_reads_all_paragraphs_that_come_with_the_question(chat):
    paragraphs = tuple(Paragraph(f"T{i}", f"Text {i}.", i == 0) for i in range(5))
    methods = made(chat, questions=[replace(ASKED[0], paragraphs=paragraphs)], **PLAIN)
    graph = next(m for m in methods if m.name == "long_context").build(replace(ASKED[0], paragraphs=paragraphs))
    (search,) = [e for e in graph.invoke({"question": "Who?"})["trace"] if e["type"] == "retrieval"]
    assert [d["title"] for d in search["documents"]] == [f"T{i}" for i in range(5)]


def test_a_description_changes_with_the_threshold_and_the_options(chat):
    def described(presets, **options):
        return made(chat, presets, **options)[-1].described

    assert described(["flare"]) == described(["flare"])
    assert len({described(["flare"]), described(["flare@0.3"]), described(["flare"], k=1)}) == 3
