"""Retrieval as a tool that an agent calls: a plain retriever, or the whole dynamic graph.

Both return text for the model and attach an artifact for programs to the tool message: the documents, or the answer
with its sources and trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.pregel import Pregel
from pydantic import BaseModel, Field

from langgraph_dynrag.clean_input import clean_all
from langgraph_dynrag.events.usage import Usage
from langgraph_dynrag.evidence import Passage, distinct, name_of, passage, render, within_budget
from langgraph_dynrag.retrieval.retriever import Retriever, acall_retriever, call_retriever, check_retriever
from rag_backbone.checks import check_type, known_arguments
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import clean_text

NOTHING = "Nothing was found."


class _Query(BaseModel):
    query: str = Field(description="What to search for, in a few words.")


class _Question(BaseModel):
    question: str = Field(description="A complete question, understandable on its own.")


@known_arguments
def create_retriever_tool(
    retriever: Retriever,
    *,
    name: str = "search",
    description: str = "Search the documents. Returns numbered passages.",
    characters: int = 6000,
) -> BaseTool:
    """Wrap a retriever as a tool; the retrieved documents are the artifact.

    Works like LangChain's function of this name. In addition, passages are numbered, cleaned (a document cannot inject
    prompt lines), deduplicated and truncated, and a search without results says so.

    Args:
        retriever: Any LangChain retriever.
        name: Name of the tool.
        description: Description of the tool for the model.
        characters: Maximum number of characters of all passages together.

    Raises:
        ConfigurationError: If `characters` is too small for a passage, or `retriever` is not a retriever.
    """
    check_retriever(retriever)
    check_type("characters", characters, int, "a whole number, such as characters=6000")
    if characters < 100:
        raise ConfigurationError(f"characters is {characters}; at least 100 are needed")

    def told(documents: list[Document]) -> tuple[str, list[Document]]:
        documents = clean_all(documents, "a retrieved document")
        found: list[Passage | None] = [passage(d.page_content, d.metadata, d.id) for d in documents]
        kept, _ = within_budget(distinct(p for p in found if p is not None), characters, len)
        return render(kept) or NOTHING, documents

    def run(query: str, callbacks: Callbacks = None) -> tuple[str, list[Document]]:
        return told(call_retriever(retriever, clean_text(query, "the query"), {"callbacks": callbacks}))

    async def arun(query: str, callbacks: Callbacks = None) -> tuple[str, list[Document]]:
        return told(await acall_retriever(retriever, clean_text(query, "the query"), {"callbacks": callbacks}))

    return StructuredTool.from_function(
        run, arun, name=name, description=description, args_schema=_Query, response_format="content_and_artifact"
    )


@known_arguments
def create_dynamic_rag_tool(
    graph: Runnable[Any, Any],
    *,
    name: str = "answer_from_documents",
    description: str = "Answer a question from the documents, looking things up on the way. Names its sources.",
) -> BaseTool:
    """Wrap the graph as a tool: the agent asks a question and gets an answer with numbered sources.

    The artifact is what the graph returned (`answer`, `short_answer`, `sources`, `warnings`, `trace`) and the `usage`
    of its model calls, as plain data; `messages` are left out. The agent also sees the warnings. Each call is an
    independent run, whose steps are not stored in the agent's thread. A graph that is interrupted before or after a
    node is the exception, because resuming it requires those steps.

    Args:
        graph: The graph that `create_dynamic_rag` returned, created without a checkpointer. A copy of it runs.
        name: Name of the tool.
        description: Description of the tool for the model.

    Raises:
        ConfigurationError: If `graph` is not a graph, or has a checkpointer: it would store its runs under the agent's
            thread.

    Example:
        >>> tool = create_dynamic_rag_tool(create_dynamic_rag(model, retriever))  # doctest: +SKIP
        >>> agent = create_agent(model, [tool])  # doctest: +SKIP
    """
    if not isinstance(graph, Runnable):
        raise ConfigurationError(
            f"graph is a {type(graph).__name__}; pass what create_dynamic_rag(...) returned, or a retriever to "
            "create_retriever_tool(...)"
        )
    if getattr(graph, "checkpointer", None):
        raise ConfigurationError(
            "the graph has a checkpointer, which would store its runs under the agent's thread_id; create the tool's "
            "graph without one: create_dynamic_rag(model, retriever)"
        )

    running = _unkept(graph)

    def run(question: str, config: RunnableConfig) -> tuple[str, dict[str, Any]]:
        return _told(running.invoke({"question": question}, config))

    async def arun(question: str, config: RunnableConfig) -> tuple[str, dict[str, Any]]:
        return _told(await running.ainvoke({"question": question}, config))

    return StructuredTool.from_function(
        run, arun, name=name, description=description, args_schema=_Question, response_format="content_and_artifact"
    )


def _unkept(graph: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Detach the graph from the agent's checkpointer, which LangGraph passes to every graph that runs inside a node."""
    if not isinstance(graph, Pregel) or graph.interrupt_before_nodes or graph.interrupt_after_nodes:
        return graph
    return graph.copy({"checkpointer": False})


def _told(result: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    artifact = {k: v for k, v in result.items() if k != "messages"}
    artifact["usage"] = Usage.of_events(result.get("trace") or []).to_state()
    lines = [str(result.get("answer") or "")]
    lines += [f"[{s['number']}] {name_of(s)}" for s in result.get("sources") or []]
    lines += [f"Warning: {warning}" for warning in result.get("warnings") or []]
    return "\n".join(lines).strip() or NOTHING, artifact
