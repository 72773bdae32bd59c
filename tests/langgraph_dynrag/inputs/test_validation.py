"""Inputs and contexts that are refused before anything runs, with the line to write."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.types import Command

from langgraph_dynrag import DynamicRAGContext
from langgraph_dynrag.inputs.validation import check_context, check_input, check_question
from rag_backbone.errors import ConfigurationError


@pytest.mark.parametrize(
    "given",
    [
        None,  # a resumed run
        Command(resume="yes"),
        {},
        {"question": "Who?"},
        {"question": None, "messages": [HumanMessage("Who?")]},
        {"messages": HumanMessage("Who?")},
        {"messages": [("user", "Who?"), {"role": "assistant", "content": "Wray."}]},
        {"queries": ["mason"]},
        {"question": "Who?", "anything": 5},
    ],
)
def test_an_input_that_may_hold_a_question_is_left_to_the_graph(given):
    check_input(given)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("Who?", r'the input is \'Who\?\' \(str\); a mapping is needed: {"question": \'Who\?\'}'),
        (HumanMessage("Who?"), r'{"messages": \[...\]}'),
        ([HumanMessage("Who?")], r'{"messages": \[...\]}'),
        (("Who?",), r'{"messages": \[...\]}'),
        (b"Who?", r'{"question": "..."}'),
        (True, r"the input is True \(bool\)"),
        ({"questoin": "Who?"}, r"'questoin' \(did you mean 'question'\?\)"),
        ({"xyz": 1, 5: 2}, r"the input has 'xyz', 5, and neither"),
        ({"messages": 5}, r"messages is 5 .*HumanMessage"),
        ({"messages": [AIMessage("Hi."), object()]}, "LangChain cannot convert"),
        ({"messages": [{"content": "Who?"}]}, "LangChain cannot convert"),
    ],
)
def test_an_input_without_a_question_is_refused_with_the_line_to_write(given, line):
    with pytest.raises(ConfigurationError, match=line):
        check_input(given)


@pytest.mark.parametrize(
    ("question", "advice"),
    [
        (HumanMessage("Who?"), r'{"messages": \[message\]}'),
        (b"Who?", r"question.decode\(\)"),
        (bytearray(b"Who?"), r"question.decode\(\)"),
        (["Who?"], r"graph.batch\(\[{\"question\": q}"),
        (("Who?",), r"graph.batch"),
        (5, "a text is needed$"),
    ],
)
def test_a_question_that_is_no_text_is_refused_with_advice(question, advice):
    with pytest.raises(ConfigurationError, match=advice):
        check_question(question)
    with pytest.raises(ConfigurationError, match=advice):
        check_input({"question": question})


@pytest.mark.parametrize("question", [None, "", "Who?"])
def test_a_text_or_no_question_passes(question):
    check_question(question)


@pytest.mark.parametrize("context", [None, {}, {"k": 5}, DynamicRAGContext(k=5)])
def test_a_mapping_or_an_instance_is_a_context(context):
    check_context(context)


@pytest.mark.parametrize("context", ["k=5", b"k", 5, True, [("k", 5)], ("k",)])
def test_a_context_that_langgraph_would_ignore_is_refused(context):
    with pytest.raises(ConfigurationError, match=r'the context is .*{"k": 5}'):
        check_context(context)


def test_the_class_of_the_context_is_no_context():
    with pytest.raises(ConfigurationError, match=r"pass an instance: DynamicRAGContext\(k=5\)"):
        check_context(DynamicRAGContext)
