"""Every event that a run writes has exactly the fields of its class, with the declared types."""

from typing import Annotated, get_args

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from pydantic import ConfigDict, TypeAdapter, ValidationError

from langgraph_dynrag import (
    PRESETS,
    AnswerPrompt,
    Budgets,
    DynamicRAGState,
    LocalChatModel,
    SegmentSelection,
    Trace,
    create_dynamic_rag,
    create_nodes,
)
from langgraph_dynrag.agents import DynamicRetrievalMiddleware
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.events.events import BudgetEvent, Event, QueryEvent, RetrievalEvent, StreamEvent, events_of
from langgraph_dynrag.injection.parametric import ParametricInjector
from langgraph_dynrag.nodes import after_reformulate
from langgraph_dynrag.presets.methods import get_preset
from langgraph_dynrag.prompts import Exemplar
from langgraph_dynrag.queries import ExplicitQuestion
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain, SelectedEvidence
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.trace.html import page
from langgraph_dynrag.triggers import SelfAwareUncertainty
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.agents.scripted_agent import UNSURE, AgentModel
from tests.langgraph_dynrag.scripted import DOCUMENTS, ScriptedChatModel, WatchedRetriever, said
from tests.tiny import tiny_llama, tiny_tokenizer

QUESTION = "Who built the bridge?"
PLAIN = AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=())
FEW = SampleSpec(samples=3, max_tokens=6)
CHANGES = {
    "seakr": {
        "trigger": SelfAwareUncertainty(-100.0, FEW),
        "evidence_selector": LeastUncertain(FEW),
        "final_answer": SurerAnswer(FEW),
    },
    "self_rag": {"selection": SegmentSelection(depth=2), "k": 2},
}
STRICT = ConfigDict(extra="forbid", strict=True)
IN_TRACE, SENT = TypeAdapter(Event, config=STRICT), TypeAdapter(StreamEvent, config=STRICT)
KINDS = {get_args(kind.__annotations__["type"])[0] for kind in get_args(StreamEvent)}


def chat():
    return LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny"))


def checked(graph, given, found=lambda out: out):
    """Run a graph, validate all of its events, and return their kinds."""
    parts = list(graph.stream(given, stream_mode=["custom", "values"]))
    sent = [part for mode, part in parts if mode == "custom"]
    written = found(parts[-1][1])["trace"]
    for event in written:
        IN_TRACE.validate_python(event)
    for event in sent:
        SENT.validate_python(event)
    trace = Trace.from_state(found(parts[-1][1]))
    assert "does not know" not in str(trace) + page(trace)
    return {event["type"] for event in [*sent, *written]}


def scripted(*replies, documents=None, **options):
    model = ScriptedChatModel(replies=[r if isinstance(r, list) else said(r) for r in replies])
    return create_dynamic_rag(model, WatchedRetriever(give=documents), **{"prompt": AnswerPrompt(), **options})


OF_PRESETS = {
    "ircot": {"token", "final_answer"},
    "adaptive_rag": {"route"},
    "seakr": {"token", "evidence_choice", "final_answer"},
    "self_rag": {"judgement", "reflection", "continuations", "selection"},
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_writes_valid_events_on_a_local_model(preset):
    expected = {"question", "draft", "accepted", "answer"} | OF_PRESETS.get(preset, set())
    for bundle in ("paper", "reference") if preset in ("dragin", "etc") else ("paper",):
        graph = create_dynamic_rag(
            chat(),
            WatchedRetriever(),
            preset=get_preset(preset, bundle=bundle),
            prompt=PLAIN,
            budgets=Budgets(tokens=16, retrievals=2),
            lookahead=8,
            **CHANGES.get(preset, {}),
        )
        assert checked(graph, {"question": QUESTION}) >= expected


def conversation():
    talk = [
        HumanMessage("Who built it?"),
        AIMessage("Aldous Wray."),
        HumanMessage(
            [{"type": "text", "text": "Where was he born?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
        ),
    ]
    graph = scripted("Where was Wray born?", "He was born in Hallin. So the answer is Hallin.", preset="single")
    return checked(graph, {"messages": talk})


def failing_searches():
    graph = scripted(
        said("It was Pike. Then", Pike=0.1),
        "a better query",
        "So the answer is Wray.",
        documents=OSError("gone"),
        preset="flare",
        initial_retrieval=False,
    )
    return checked(graph, {"question": QUESTION})


def reasoning_and_repeating():
    replies = ["<think>Who?</think>The bridge was built by Wray. He", "The bridge was built by Wray. He died there."]
    graph = scripted(*replies, "So the answer is Wray.", preset="fixed_sentence", initial_retrieval=False)
    return checked(graph, {"question": QUESTION})


def an_empty_reply():
    return checked(scripted("", "So the answer is Wray.", preset="single"), {"question": QUESTION})


def an_example_s_fact():
    prompt = AnswerPrompt(exemplars=(Exemplar("Who wrote it?", "So the answer is Ansel Dorvany."),))
    return checked(scripted("So the answer is Dorvany.", preset="single", prompt=prompt), {"question": QUESTION})


def searches_by_tags():
    def call(text):
        return f"<|begin_search_query|>{text}<|end_search_query|>"

    replies = [f"Who? {call('bridge')}", "**Final Information** It was Wray.", f"I see. {call('bridge')}"]
    graph = scripted(*replies, "The answer is \\boxed{Wray}.", preset="search_o1", prompt=None)
    return checked(graph, {"question": QUESTION})


def a_selector_of_ones_own():
    class First:
        needs = frozenset()

        def select(self, found, kept, try_out):
            return SelectedEvidence(found[:1], {"by": "rank"})

    graph = scripted("So the answer is Wray.", preset="single", evidence_selector=First())
    return checked(graph, {"question": QUESTION})


def training(folder):
    lm = CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")
    with LMDBStore(folder / "store", model=lm.fingerprint, map_size=1 << 26) as store:
        adapters = ParametricModel.of(lm, store, recipe="prag", max_adapters=1)
        graph = create_dynamic_rag(
            LocalChatModel.from_causal_lm(lm),
            WatchedRetriever(give=[Document("A road was built by Ada in 1954.")]),
            preset="single",
            injection=ParametricInjector(adapters),
            prompt=PLAIN,
            budgets=Budgets(tokens=6),
        )
        return checked(graph, {"question": QUESTION})


def agents():
    kinds = set()
    for model, options in (
        (AgentModel(replies=[UNSURE], reports=False), {}),
        (AgentModel(replies=[UNSURE, *[ValueError("too long")] * 2]), {}),
        (AgentModel(replies=[UNSURE, said("Who built it?"), UNSURE]), {"max_searches": 1, "query": ExplicitQuestion()}),
    ):
        agent = create_agent(model, [], middleware=[DynamicRetrievalMiddleware(WatchedRetriever(), **options)])
        kinds |= checked(agent, {"messages": [HumanMessage(QUESTION)]}, lambda out: out["dynamic_retrieval"])
    return kinds


SCENES = {
    conversation: {"condensed", "not_text", "retrieval", "reformulation", "resume"},
    failing_searches: {"verdict", "query", "retrieval", "reformulation", "closing"},
    reasoning_and_repeating: {"reasoning", "repetition"},
    an_empty_reply: {"no_text"},
    an_example_s_fact: {"exemplar"},
    searches_by_tags: {"digest", "inserted"},
    a_selector_of_ones_own: {"evidence_choice"},
    agents: {"degraded", "kept", "budget", "calls"},
}


@pytest.mark.parametrize("scene", SCENES)
def test_special_scenes_write_valid_events(scene):
    assert scene() >= SCENES[scene]


def test_every_kind_of_event_is_checked():
    seen = {"question", "draft", "accepted", "answer", "training", "injection"}
    assert seen.union(*OF_PRESETS.values(), *SCENES.values()) == KINDS


def test_training_adapters_during_a_run_writes_valid_events(tmp_path):
    assert training(tmp_path) >= {"training", "injection"}


# ---------------------------------------------------------------------- the check itself, and readers


def test_the_check_rejects_fields_that_a_class_does_not_have():
    event = BudgetEvent(type="budget", which="tokens", limit=3)
    IN_TRACE.validate_python(event)
    for wrong in ({**event, "more": 1}, {"type": "budget", "which": "tokens"}, {**event, "which": 3}):
        with pytest.raises(ValidationError):
            IN_TRACE.validate_python(wrong)


def test_events_are_plain_dicts_and_can_be_read_by_kind():
    events = [QueryEvent(type="query", queries=["a"], rewrite=0), BudgetEvent(type="budget", which="tokens", limit=3)]
    assert all(type(event) is dict for event in events)
    assert events_of(events, QueryEvent) == events[:1]
    assert events_of(events, RetrievalEvent) == []


def test_an_event_of_a_newer_version_is_kept_and_shown():
    newer = {"type": "verification", "claims": ["<b>one</b>"], "node": "verify", "seconds": 1.5}
    state = {"trace": [{"type": "question", "question": QUESTION}, newer]}
    trace = Trace.from_state(state)
    assert trace.to_dict()["trace"][1] == newer
    assert trace.seconds == {"verify": 1.5}
    assert "verification, which this version of dynprag does not know: {'claims': ['<b>one</b>']}" in str(trace)
    assert "&lt;b&gt;one&lt;/b&gt;" in page(trace)
    assert str(DOCUMENTS[0].page_content) not in str(trace)


# ---------------------------------------------------------------------- the state's types and LangGraph


def test_server_clients_see_plain_data():
    graph = scripted(preset="single")
    plain = {"additionalProperties": True, "type": "object"}
    assert graph.get_output_jsonschema()["properties"]["trace"] == {"items": plain, "title": "Trace", "type": "array"}
    for name in ("draft", "verdict", "beam", "answered"):
        schema = TypeAdapter(graph.channels[name].UpdateType).json_schema()
        assert schema == {"anyOf": [plain, {"type": "null"}]}


def test_nodes_work_in_a_graph_with_a_different_reducer_for_a_channel():
    def joined(old, new):
        return [*old, *new, {"type": "own"}]

    class Own(DynamicRAGState):
        trace: Annotated[list, joined]

    nodes = create_nodes(ScriptedChatModel(replies=[]), WatchedRetriever(), preset="single")
    builder = StateGraph(Own)
    builder.add_node("reformulate", nodes.reformulate)
    builder.add_edge(START, "reformulate")
    builder.add_conditional_edges("reformulate", after_reformulate, {"retrieve": END, "resume": END})
    out = builder.compile().invoke({"question": QUESTION, "queries": [], "found": []})
    assert [event["type"] for event in out["trace"]][-2:] == ["reformulation", "own"]
