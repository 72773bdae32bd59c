"""The attributes of a node, from its events."""

from langgraph_dynrag.tracing.attributes import node_attributes
from rag_backbone.tracing import Text

PASSAGE = {"id": "p1", "text": "Built in 1871.", "title": "Ferry", "source": "", "score": 0.5, "metadata": {}}


def retrieval(query, *found):
    documents = [{**passage, "new": True, "in_prompt": False} for passage in found]
    return {
        "type": "retrieval",
        "query": query,
        "documents": documents,
        "returned": 1,
        "error": None,
        "identical": False,
    }


def test_one_event_of_a_kind_gives_values_and_several_give_lists():
    one = node_attributes([retrieval("ferry", PASSAGE)])
    assert one["dynprag.retrieval.query"] == Text("ferry", "input")
    assert one["dynprag.retrieval.returned"] == 1
    assert "dynprag.retrieval.error" not in one
    two = node_attributes([retrieval("ferry", PASSAGE), retrieval("mayor", {**PASSAGE, "id": "p2", "score": None})])
    assert two["dynprag.retrieval.query"] == Text(["ferry", "mayor"], "input")
    assert two["dynprag.events"] == ["retrieval", "retrieval"]
    assert [two[f"retrieval.documents.{i}.document.id"] for i in (0, 1)] == ["p1", "p2"]


def test_an_injection_says_which_passages_act_and_why_others_do_not():
    found = node_attributes([{
        "type": "injection", "mode": "parametric", "in_weights": ["p1"], "in_prompt_because": {"p2": "no adapter"},
        "trained": 1, "translated": 0, "preparing_seconds": 2.5, "strength": 0.5, "forgetting": None, "left_out": {},
        "conflicts": None, "routing": {"p1": 1.5, "p2": None}, "training": None,
    }])  # fmt: skip
    assert found["dynprag.injection.in_weights"] == ["p1"]
    assert found["dynprag.injection.in_prompt_because"] == {"p2": "no adapter"}
    assert found["dynprag.injection.routing"] == {"p1": 1.5, "p2": None}
    assert found["dynprag.injection.strength"] == 0.5


def test_usage_and_warnings_of_the_node():
    tokens = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    calls = {"type": "calls", "usage": {"calls": 2, "reported": 1, "tokens": tokens}}
    found = node_attributes([calls, {"type": "not_text", "warning": "An image was ignored."}])
    assert found == {
        "dynprag.events": ["calls", "not_text"],
        "dynprag.warnings": Text(["An image was ignored."], "output"),
        "dynprag.usage.calls": 2,
        "dynprag.usage.input_tokens": 5,
        "dynprag.usage.output_tokens": 2,
    }


def test_a_kind_that_is_not_known_is_only_named():
    assert node_attributes([{"type": "from a newer version", "text": "secret"}]) == {
        "dynprag.events": ["from a newer version"]
    }
