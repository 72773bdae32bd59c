"""The graph in LangGraph: streams, threads, checkpoints, interrupts, subgraphs, callbacks."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from langgraph_dynrag import (
    AnswerPrompt,
    Budgets,
    DynamicRAGContext,
    DynamicRAGState,
    LocalChatModel,
    Trace,
    create_dynamic_rag,
    create_nodes,
)
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.queries import LastSentence, Question
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.state import StateVersionError
from langgraph_dynrag.triggers import EverySentence, Never, SelfAwareUncertainty
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.scripted import DOCUMENTS, ScriptedChatModel, WatchedRetriever, said
from tests.tiny import tiny_llama, tiny_tokenizer

QUESTION = "Who built the Cooper's Bridge?"
REPLIES = [
    said("The bridge was built by Joan Pike. It stands still.", Joan=0.1, Pike=0.5),
    said(" The bridge was built by Aldous Wray. It stands still.", Aldous=0.2),
    said(" So the answer is Aldous Wray."),
]
ANSWER = "The bridge was built by Aldous Wray. So the answer is Aldous Wray."
PROMPT = AnswerPrompt()


def scripted_graph(replies=REPLIES, retriever=None, **options):
    return create_dynamic_rag(
        ScriptedChatModel(replies=replies), retriever or WatchedRetriever(), preset="flare", prompt=PROMPT, **options
    )


# ---------------------------------------------------------------------- sync, async, streams


async def test_async_and_sync_runs_give_the_same_result():
    expected = scripted_graph().invoke({"question": QUESTION})
    found = await scripted_graph().ainvoke({"question": QUESTION})
    assert found["answer"] == expected["answer"] == ANSWER
    assert [s["id"] for s in found["sources"]] == [s["id"] for s in expected["sources"]]
    assert [e["type"] for e in found["trace"]] == [e["type"] for e in expected["trace"]]


def test_updates_list_the_nodes_in_order():
    steps = [next(iter(u)) for u in scripted_graph().stream({"question": QUESTION}, stream_mode="updates")]
    once = ["retrieve", "reformulate", "resume", "generate", "monitor"]
    assert steps == ["begin", *once, *once, "generate", "monitor"]


def test_the_messages_stream_shows_accepted_text_only():
    parts = [m for m, _ in scripted_graph().stream({"question": QUESTION}, stream_mode="messages")]
    assert all(isinstance(m, AIMessageChunk) for m in parts)
    assert "".join(m.content for m in parts) == ANSWER
    assert len(parts) == 2
    assert len({m.id for m in parts}) == 1


async def test_the_asynchronous_messages_stream_is_the_same():
    parts = [m async for m, _ in scripted_graph().astream({"question": QUESTION}, stream_mode="messages")]
    assert "".join(m.content for m in parts) == ANSWER


def test_custom_events_report_tokens_verdicts_queries_and_documents():
    events = list(scripted_graph().stream({"question": QUESTION}, stream_mode="custom"))
    kinds = [e["type"] for e in events]
    assert {"question", "retrieval", "reformulation", "resume", "token", "verdict", "query", "answer"} <= set(kinds)
    joan = next(e for e in events if e["type"] == "token" and e["text"] == " Joan")
    assert joan["logprob"] == pytest.approx(-2.3026, abs=1e-3)
    found = [e for e in events if e["type"] == "retrieval"]
    assert [e["query"] for e in found] == [QUESTION, "The bridge was built by Pike."]
    assert found[0]["documents"][0]["id"] == "bridge"
    json.dumps(events)


def test_the_graph_is_drawn_without_network_access():
    drawn = scripted_graph().get_graph().draw_mermaid(with_styles=False)
    edges = {line.strip().rstrip(";") for line in drawn.splitlines() if "--> " in line or ".->" in line}
    assert edges == {
        "__start__ --> begin",
        "begin -.-> generate",
        "begin -.-> retrieve",
        "generate --> monitor",
        "monitor -.-> __end__",
        "monitor -.-> generate",
        "monitor -.-> retrieve",
        "reformulate -.-> resume",
        "reformulate -.-> retrieve",
        "resume -.-> __end__",
        "resume -.-> generate",
        "retrieve --> reformulate",
    }


# ---------------------------------------------------------------------- threads and messages


def test_the_last_human_message_is_the_question():
    graph = scripted_graph(condense=None)
    out = graph.invoke({"messages": [HumanMessage("Hello"), AIMessage("Hello."), HumanMessage(QUESTION)]})
    assert out["question"] == QUESTION
    assert [m.content for m in out["messages"]][-2:] == [QUESTION, ANSWER]
    assert out["messages"][-1].response_metadata["dynprag"]["short_answer"] == "Aldous Wray"


def test_two_questions_on_one_thread_do_not_mix():
    second = [said("It is the Tamsin. So the answer"), said(" So the answer is the Tamsin.")]
    graph = scripted_graph([*REPLIES, *second], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    first = graph.invoke({"question": QUESTION}, config)
    out = graph.invoke({"question": "Which river crosses Brannoch?"}, config)
    assert first["short_answer"] == "Aldous Wray"
    assert out["answer"] == "It is the Tamsin. So the answer is the Tamsin."
    assert {s["title"] for s in out["sources"]} == {"Tamsin"}
    assert out["trace"][0] == {**out["trace"][0], "type": "question", "question": "Which river crosses Brannoch?"}
    assert Trace.from_state(out).counts["retrievals"] == 1
    assert [m.content for m in out["messages"]] == [ANSWER, out["answer"]]


def test_a_new_message_on_a_thread_is_a_new_question():
    second = [said("It is the Tamsin. So the answer"), said(" So the answer is the Tamsin.")]
    graph = scripted_graph([*REPLIES, *second], checkpointer=InMemorySaver(), condense=None)
    config = {"configurable": {"thread_id": "1"}}
    graph.invoke({"question": QUESTION}, config)
    out = graph.invoke({"messages": [HumanMessage("Which river crosses Brannoch?")]}, config)
    assert out["question"] == "Which river crosses Brannoch?"
    assert out["short_answer"] == "the Tamsin"


def test_repeating_a_question_starts_over():
    graph = scripted_graph(REPLIES * 2, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    first = graph.invoke({"question": QUESTION}, config)
    again = graph.invoke({"question": QUESTION}, config)
    assert again["answer"] == first["answer"]
    assert len(again["trace"]) == len(first["trace"])


def test_the_graph_works_as_a_node_of_another_graph():
    parent = StateGraph(MessagesState)
    parent.add_node("greet", lambda _state: {"messages": [AIMessage("Let me see.")]})
    parent.add_node("research", lambda state: {"messages": [HumanMessage(state["messages"][0].content)]})
    parent.add_node("rag", scripted_graph(condense=None))
    parent.add_edge(START, "greet")
    parent.add_edge("greet", "research")
    parent.add_edge("research", "rag")
    parent.add_edge("rag", END)
    app = parent.compile(checkpointer=InMemorySaver())
    out = app.invoke({"messages": [HumanMessage(QUESTION)]}, {"configurable": {"thread_id": "1"}})
    assert [m.content for m in out["messages"]] == [QUESTION, "Let me see.", QUESTION, ANSWER]
    assert set(out) == {"messages"}


def test_nodes_work_in_a_custom_graph_and_outside_a_graph():
    nodes = create_nodes(ScriptedChatModel(replies=[]), WatchedRetriever(), preset="no_retrieval", prompt=PROMPT)
    update = nodes.retrieve({"queries": ["Who was Joan Pike?"], "question": QUESTION})
    assert update["found"][0]["id"] == "pike"
    builder = StateGraph(DynamicRAGState)
    builder.add_node("ask", lambda state: {"queries": [state["question"].upper()]})
    builder.add_node("retrieve", nodes.retrieve)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "retrieve")
    out = builder.compile().invoke({"question": "tamsin?"})
    assert out["found"][0]["id"] == "tamsin"


# ---------------------------------------------------------------------- interrupts and overrides


def test_a_person_can_inspect_and_change_the_query():
    retriever = WatchedRetriever()
    graph = scripted_graph(
        retriever=retriever, initial_retrieval=False, checkpointer=InMemorySaver(), interrupt_before=["retrieve"]
    )
    config = {"configurable": {"thread_id": "1"}}
    graph.invoke({"question": QUESTION}, config)
    state = graph.get_state(config)
    assert state.next == ("retrieve",)
    assert state.values["queries"] == ["The bridge was built by Pike."]
    assert retriever.queries == []
    graph.update_state(config, {"queries": ["mason Aldous Wray"]})
    out = graph.invoke(None, config)
    assert retriever.queries == ["mason Aldous Wray"]
    assert out["answer"] == ANSWER


def test_time_travel_from_an_earlier_checkpoint():
    graph = scripted_graph(
        [*REPLIES, said(" It was another mason. It stands still."), REPLIES[2]], checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    graph.invoke({"question": QUESTION}, config)
    before = next(s for s in graph.get_state_history(config) if s.next == ("generate",) and s.values["regenerating"])
    out = graph.invoke(None, before.config)
    assert out["answer"] == "It was another mason. So the answer is Aldous Wray."


def test_context_overrides_apply_to_one_run():
    retriever, other = WatchedRetriever(), WatchedRetriever(give=DOCUMENTS)
    graph = scripted_graph([said("It was Joan. So the answer", Joan=0.1), said(" So the answer is Joan.")], retriever)
    context = DynamicRAGContext(retriever=other, trigger=Never(), query=Question(), k=4, budgets=Budgets(tokens=50))
    out = graph.invoke({"question": QUESTION}, context=context)
    assert retriever.queries == []
    assert other.queries == [QUESTION]
    assert len(out["sources"]) == 4
    assert scripted_graph(retriever=retriever).invoke({"question": QUESTION})["answer"] == ANSWER
    assert retriever.queries


def test_a_context_may_be_a_dict_and_is_validated():
    out = scripted_graph().invoke({"question": QUESTION}, context={"k": 1})
    assert all(len(e["documents"]) == 1 for e in out["trace"] if e["type"] == "retrieval")
    with pytest.raises(ValueError, match="k is 0"):
        scripted_graph().invoke({"question": QUESTION}, context={"k": 0})


class Watch(BaseCallbackHandler):
    def __init__(self):
        self.seen = []

    def on_chat_model_start(self, serialized, messages, **kwargs):
        self.seen.append("model")

    def on_retriever_start(self, serialized, query, **kwargs):
        self.seen.append(query)

    def on_retriever_end(self, documents, **kwargs):
        self.seen.append(len(documents))


def test_callbacks_reach_model_and_retriever():
    watch = Watch()
    scripted_graph().invoke({"question": QUESTION}, {"callbacks": [watch]})
    assert watch.seen.count("model") == 3
    assert QUESTION in watch.seen
    assert 2 in watch.seen


async def test_callbacks_reach_model_and_retriever_asynchronously():
    watch = Watch()
    await scripted_graph().ainvoke({"question": QUESTION}, {"callbacks": [watch]})
    assert watch.seen.count("model") == 3
    assert QUESTION in watch.seen


# ---------------------------------------------------------------------- killed and resumed

OPTIONS = {
    "prompt": AnswerPrompt(answer_phrase=None, stop=()),
    "budgets": Budgets(tokens=16),
    "lookahead": 8,
    "initial_retrieval": True,
}


def local_graph(checkpointer, retriever, preset):
    chat = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny"))
    few = SampleSpec(samples=2, max_tokens=3)
    changes = {
        "fixed_sentence": {"trigger": EverySentence(), "query": LastSentence()},
        "seakr": {
            "trigger": SelfAwareUncertainty(-6, few),
            "evidence_selector": LeastUncertain(few),
            "final_answer": SurerAnswer(few),
        },
    }.get(preset, {})
    return create_dynamic_rag(chat, retriever, preset=preset, checkpointer=checkpointer, **{**OPTIONS, **changes})


def copied(saver, path):
    """Copy the database in the state that a process killed now would leave."""
    with sqlite3.connect(path) as copy:
        saver.conn.backup(copy)
    copy.close()
    return path


@pytest.mark.parametrize("preset", ["fixed_sentence", "flare", "dragin", "seakr"])
def test_a_run_killed_between_any_two_nodes_resumes_with_the_same_answer_and_repeats_no_search(tmp_path, preset):
    whole = WatchedRetriever()
    config = {"configurable": {"thread_id": "t"}}
    with SqliteSaver.from_conn_string(str(tmp_path / "whole.sqlite")) as saver:
        graph = local_graph(saver, whole, preset)
        updates = graph.stream({"question": QUESTION}, config, stream_mode="updates", durability="sync")
        # An update is emitted once its checkpoint is written.
        killed = [(copied(saver, str(tmp_path / f"{i}.sqlite")), [*whole.queries]) for i, _ in enumerate(updates)]
        expected = graph.get_state(config).values
    assert len(whole.queries) > 1
    for path, searched in killed:
        # Another process: only the file is left of the first one.
        retriever = WatchedRetriever()
        with SqliteSaver.from_conn_string(path) as saver:
            out = local_graph(saver, retriever, preset).invoke(None, config)
        assert out["answer"] == expected["answer"]
        assert searched + retriever.queries == whole.queries
        assert out["sources"] == expected["sources"]


async def test_an_asynchronous_sqlite_checkpointer_works(tmp_path):
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "a.sqlite")) as saver:
        graph = local_graph(saver, WatchedRetriever(), "dragin")
        config = {"configurable": {"thread_id": "t"}}
        out = await graph.ainvoke({"question": QUESTION}, config)
        state = await graph.aget_state(config)
    assert state.values["answer"] == out["answer"]
    assert "attention" not in state.values


def test_checkpoints_contain_only_plain_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
    with SqliteSaver.from_conn_string(str(tmp_path / "a.sqlite")) as saver:
        graph = local_graph(saver, WatchedRetriever(), "dragin")
        config = {"configurable": {"thread_id": "t"}}
        graph.invoke({"question": QUESTION}, config)
        for snapshot in graph.get_state_history(config):
            values = {k: v for k, v in snapshot.values.items() if k != "messages"}
            assert json.loads(json.dumps(values)) == values


_KILLED = """
import os, sys
from langgraph.checkpoint.sqlite import SqliteSaver
from tests.langgraph_dynrag.scripted import WatchedRetriever
from tests.langgraph_dynrag.test_graph import QUESTION, local_graph
path, afters = sys.argv[1], map(int, sys.argv[2:])
class Logged(WatchedRetriever):
    def _get_relevant_documents(self, query, *, run_manager, k=3):
        with open(path + ".log", "a") as file:
            file.write(query.replace(chr(10), " ") + chr(10))
        return super()._get_relevant_documents(query, run_manager=run_manager, k=k)
def run(after):
    with SqliteSaver.from_conn_string(path) as saver:
        graph = local_graph(saver, Logged(), "flare")
        config = {"configurable": {"thread_id": "t"}}
        resume = graph.get_state(config).next
        given = None if resume else {"question": QUESTION}
        for i, update in enumerate(graph.stream(given, config, stream_mode="updates", durability="sync")):
            if i + 1 == after:
                os._exit(9)
        print(graph.get_state(config).values["answer"].encode())
for after in afters:  # forked, as the imports take longest
    if not (child := os.fork()):
        run(after)
        sys.exit()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (9 if after else 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_of_a_killed_process_resumes_in_another_process(tmp_path):
    path, whole = tmp_path / "killed", WatchedRetriever()
    with SqliteSaver.from_conn_string(str(tmp_path / "whole")) as saver:
        expected = local_graph(saver, whole, "flare").invoke({"question": QUESTION}, {"configurable": {"thread_id": 1}})
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path), "4", "3", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{expected['answer'].encode()}\n"
    assert (tmp_path / "killed.log").read_text().splitlines() == [query.replace("\n", " ") for query in whole.queries]


def test_a_state_of_another_version_is_refused(tmp_path):
    path = str(tmp_path / "a.sqlite")
    config = {"configurable": {"thread_id": "t"}}
    with SqliteSaver.from_conn_string(path) as saver:
        graph = scripted_graph(checkpointer=saver, interrupt_before=["generate"])
        graph.invoke({"question": QUESTION}, config)
        graph.update_state(config, {"version": 0})
        with pytest.raises(StateVersionError, match=r"version 0.*new thread_id"):
            graph.invoke(None, config)
    assert sqlite3.connect(path).execute("select count(*) from checkpoints").fetchone()[0] > 0
