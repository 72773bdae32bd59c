"""Lone surrogates, from cut emoji and PDF extractors, are replaced on entry and break nothing later."""

import json
import logging
import sqlite3

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from langgraph_dynrag import LocalChatModel, create_dynamic_rag, create_nodes
from langgraph_dynrag.agents import DynamicRetrievalMiddleware, create_dynamic_rag_tool, create_retriever_tool
from langgraph_dynrag.calibration.questions import CalibrationQuestion
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.retrieval import BM25Retriever, LocalIndex, MiniLMEmbeddings, Splitter
from langgraph_dynrag.state import DynamicRAGState
from langgraph_dynrag.triggers import Once
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

CUT = "Who built \ud83d the bridge? \udce9"
FOUND = Document(
    "The bridge \ud83d was built by Wray. \ude00",
    id="id\ud800",
    metadata={"title": "Bri\udfffdge", "source": "b\udce9.pdf", "tags\ud83d": ["x\ud83d", {"y": "\udc00"}], "page": 3},
)


def sound(value):
    """Return whether a value's text can be written as JSON in UTF-8, which is stricter than any checkpointer."""
    json.dumps(value, ensure_ascii=False, default=lambda o: sorted(vars(o).items())).encode()
    return True


@pytest.fixture(params=["memory", "sqlite"])
def saver(request):
    if request.param == "memory":
        yield InMemorySaver()
        return
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    yield SqliteSaver(connection)
    connection.close()


@pytest.fixture
def graph(tiny_lm):
    def make(**options):
        chat = LocalChatModel.from_causal_lm(tiny_lm)
        return create_dynamic_rag(chat, WatchedRetriever(give=[FOUND]), preset="single", condense=None, **options)

    return make


@pytest.mark.parametrize(
    "given",
    [
        {"question": CUT},
        {"messages": [HumanMessage(CUT, name="u\ud83d")]},
        {"messages": [("user", CUT)]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": CUT}]}]},
        {"messages": [HumanMessage("Hello \ud83d"), AIMessage("Hi \udc00"), HumanMessage(CUT)]},
    ],
)
def test_questions_messages_and_documents_survive_a_checkpointer(graph, saver, given, caplog):
    config = {"configurable": {"thread_id": "1"}}
    with caplog.at_level(logging.WARNING):
        result = graph(checkpointer=saver).invoke(given, config)
    assert result["question"] == "Who built \ufffd the bridge? \ufffd"
    (source,) = result["sources"]
    assert (source["text"], source["title"]) == ("The bridge \ufffd was built by Wray. \ufffd", "Bri\ufffddge")
    assert sound({k: v for k, v in result.items() if k != "messages"})
    assert sound([m.content for m in result["messages"]])
    assert "surrogates were replaced" in caplog.text
    documents = next(e for e in result["trace"] if e["type"] == "retrieval")["documents"]
    assert documents[0]["metadata"]["tags\ufffd"] == ["x\ufffd", {"y": "\ufffd"}]


async def test_an_asynchronous_run_accepts_them(graph):
    result = await graph(checkpointer=InMemorySaver()).ainvoke({"question": CUT}, {"configurable": {"thread_id": "1"}})
    assert sound(result["question"])


def test_matching_halves_become_one_character_without_a_warning(graph, caplog):
    result = graph().invoke({"question": "Who \ud83d\ude00?"})
    assert result["question"] == "Who 😀?"
    assert "\ud83d" not in str(result)


def test_a_query_edited_by_a_person_is_repaired(graph, saver):
    built = graph(checkpointer=saver, interrupt_before=["retrieve"])
    config = {"configurable": {"thread_id": "1"}}
    built.invoke({"question": "Who?"}, config)
    built.update_state(config, {"queries": ["bridge \ud83d"]})
    result = built.invoke(None, config)
    assert next(e for e in result["trace"] if e["type"] == "retrieval")["query"] == "bridge \ufffd"
    again = built.invoke(Command(update={"question": CUT}), config)
    assert sound(again["question"])


def test_nodes_in_a_custom_graph_repair_the_question(tiny_lm):
    nodes = create_nodes(LocalChatModel.from_causal_lm(tiny_lm), WatchedRetriever(give=[FOUND]), preset="single")
    begin = nodes["begin"] if isinstance(nodes, dict) else nodes.begin
    assert begin({"question": CUT})["question"] == "Who built \ufffd the bridge? \ufffd"
    own = StateGraph(DynamicRAGState).add_node("begin", begin).add_edge(START, "begin").add_edge("begin", END).compile()
    assert sound(own.invoke({"messages": [HumanMessage(CUT)]})["question"])


def test_replies_of_a_remote_model_are_repaired():
    model = ScriptedChatModel(
        replies=[[("It", 0.9), (" was\ud83d", 0.9), (" Wray.", 0.9)], said(" So the answer is Wray.")]
    )
    model.__class__ = Halved
    result = create_dynamic_rag(model, WatchedRetriever(give=[FOUND]), preset="single").invoke({"question": "Who?"})
    assert "was\ufffd" in result["answer"]
    assert sound({k: v for k, v in result.items() if k != "messages"})


class Halved(ScriptedChatModel):
    """Omits the bytes of its tokens, like servers that send half a character."""

    def _entry(self, token):
        return {"token": token[0], "bytes": None, "logprob": -0.1, "top_logprobs": []}


# ------------------------------------------------------------------------------------------------------ chat model


@tool
def look_up(query: str) -> str:
    """Look something up \ud83d."""
    return query


CONVERSATIONS = [
    [HumanMessage(CUT)],
    [SystemMessage("Be \udc00 brief."), HumanMessage([{"type": "text", "text": CUT}])],
    [
        HumanMessage("a"),
        AIMessage("", tool_calls=[{"name": "look_up", "args": {"query": "\ud83d"}, "id": "1"}]),
        ToolMessage("found \udfff", tool_call_id="1", name="look\ud83d"),
    ],
    [HumanMessage("Go on."), AIMessage("It was \ud83d")],
]


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("tools", [False, True])
async def test_every_method_of_the_chat_model_accepts_them(tiny_lm, messages, tools):
    chat = LocalChatModel.from_causal_lm(tiny_lm, max_tokens=2)
    model = chat.bind_tools([look_up]) if tools else chat
    assert sound(model.invoke(messages).content)
    assert sound((await model.ainvoke(messages)).content)
    assert [c async for c in model.astream(messages)]
    assert list(model.stream(messages))
    assert len(model.batch([messages, messages])) == 2
    assert chat.get_num_tokens(CUT) > 0
    assert chat.get_num_tokens_from_messages(messages) > 0
    assert chat.get_token_ids(CUT)


def test_a_plain_prompt_is_repaired_before_it_is_encoded(tiny_lm):
    from rag_backbone.engine.requests import Request

    assert tiny_lm.engine.generate(Request(CUT, max_new_tokens=1)).prompt_tokens > 0
    assert tiny_lm.engine.encode(CUT) == tiny_lm.engine.encode(
        CUT.replace("\ud83d", "\ufffd").replace("\udce9", "\ufffd")
    )


# ------------------------------------------------------------------------------------------------------ searching


@pytest.mark.parametrize("kind", ["dense", "bm25", "hybrid"])
def test_local_indexes_can_be_searched_with_them(tmp_path, kind):
    (tmp_path / "a.txt").write_text("The bridge was built by Wray.")
    index = LocalIndex(tmp_path / "index", embeddings=DeterministicFakeEmbedding(size=8))
    index.ingest(tmp_path / "a.txt", progress=False)
    assert index.as_retriever(kind).invoke(CUT)[0].page_content == "The bridge was built by Wray."


def test_documents_with_them_are_indexed_by_bm25_and_chunked():
    (found,) = BM25Retriever.from_documents([FOUND, Document("Bees.")]).invoke("bridge")
    assert found.page_content == FOUND.page_content
    (chunk,) = Splitter().split(FOUND)
    assert sound([chunk.page_content, chunk.metadata])


def test_dense_vectors_are_the_same_for_both_forms_of_normalisation():
    embeddings = MiniLMEmbeddings()
    assert embeddings.embed_query("Việt Nam café") == pytest.approx(
        embeddings.embed_query("Vie\u0323\u0302t Nam cafe\u0301")
    )
    assert len(embeddings.embed_documents([CUT, "\ud83d"])) == 2


def test_truncating_a_long_document_does_not_split_a_pair():
    made = passage("a" * 19_999 + "\ud83d\ude00" + "b", {}, None)
    assert made["text"].endswith("a😀")


# ------------------------------------------------------------------------------------------------------ tools


def test_tools_accept_and_return_sound_text(graph):
    for made in (create_retriever_tool(WatchedRetriever(give=[FOUND])), create_dynamic_rag_tool(graph())):
        argument = next(iter(made.args))
        message = made.invoke({"name": made.name, "args": {argument: CUT}, "id": "1", "type": "tool_call"})
        assert sound(message.content)
        artifact = message.artifact
        assert sound([[d.page_content, d.metadata] for d in artifact] if isinstance(artifact, list) else artifact)


async def test_an_agent_with_the_middleware_accepts_them(tiny_lm):
    middleware = DynamicRetrievalMiddleware(WatchedRetriever(give=[FOUND]), trigger=Once())
    agent = create_agent(LocalChatModel.from_causal_lm(tiny_lm, max_tokens=3), middleware=[middleware])
    given = {"messages": [HumanMessage(CUT)]}
    for result in (agent.invoke(given), await agent.ainvoke(given)):
        assert sound(result["dynamic_retrieval"])
        assert sound(result["messages"][-1].content)


def test_questions_of_a_calibration_are_repaired():
    asked = CalibrationQuestion.of({"question": CUT, "answers": ["Wray \ud83d"]})
    assert asked == CalibrationQuestion("Who built \ufffd the bridge? \ufffd", ("Wray \ufffd",))
