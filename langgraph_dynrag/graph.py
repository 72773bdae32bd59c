"""Put a model, a retriever and a method together into a LangGraph state machine."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, TypeVar, Unpack

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer

from langgraph_dynrag.assembly import make_injector, make_settings
from langgraph_dynrag.compiled_graph import DynamicRAGGraph
from langgraph_dynrag.generators.wrapped_models import ChatModelLike
from langgraph_dynrag.injection.injector import Injection, Injector
from langgraph_dynrag.nodes import (
    Begin,
    Conclude,
    DecideAndSelect,
    Expand,
    Generate,
    Monitor,
    Reformulate,
    Resume,
    ResumeBeam,
    Retrieve,
    after_begin,
    after_monitor,
    after_reformulate,
    after_resume,
)
from langgraph_dynrag.options import DynamicRAGOptions, refuse_unknown_options
from langgraph_dynrag.presets.methods import Preset
from langgraph_dynrag.retrieval.retriever import Retriever
from langgraph_dynrag.state import DynamicRAGContext, DynamicRAGInput, DynamicRAGOutput, DynamicRAGState
from rag_backbone.aio import in_own_thread
from rag_backbone.checks import shown, suggestion
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_value

if TYPE_CHECKING:
    from langgraph_dynrag.generators.server_policy import ServerPolicy
    from langgraph_dynrag.injection.parametric import AdapterModel

_P = ParamSpec("_P")
_R = TypeVar("_R")


class DynamicRAGNodes(NamedTuple):
    """The nodes of one configuration, for use in a graph of your own; `create_nodes` returns them.

    Each takes the state (`DynamicRAGState`) and returns an update. `stage` and `queries` in the state say where an edge
    should lead next.
    """

    begin: Begin
    generate: Generate
    monitor: Monitor
    retrieve: Retrieve
    reformulate: Reformulate
    resume: Resume
    conclude: Conclude | None = None
    """Present if the settings have a `final_answer`; `monitor` and `resume` lead there with the stage `concluding`."""


_NODES = DynamicRAGNodes._fields


def create_dynamic_rag(
    model: ChatModelLike,
    retriever: Retriever | None = None,
    *,
    preset: str | Path | Preset = "flare",
    injection: Injection | Injector = "context",
    adapters: AdapterModel | None = None,
    server: ServerPolicy | None = None,
    checkpointer: Checkpointer = None,
    interrupt_before: list[str] | Literal["*"] | None = None,
    interrupt_after: list[str] | Literal["*"] | None = None,
    name: str = "dynamic_rag",
    **options: Unpack[DynamicRAGOptions],
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Create a graph that retrieves while the model writes.

    Args:
        model: `LocalChatModel`, or any chat model that reports log-probabilities as OpenAI's do; LangChain's `bind`,
            `with_config`, `with_retry` and `with_fallbacks` around it are understood.
        retriever: Any LangChain retriever. Only `no_retrieval` works without one.
        preset: The name of a published method (`langgraph_dynrag.PRESETS`), a file that `calibrate` wrote, or what
            `get_preset` returns, which takes a data set's published settings and the `"reference"` form of a method.
        injection: Where evidence goes: `"context"` (the prompt), `"parametric"` (the model's weights) or `"combined"`
            (both, with weakened adapters). Pass a `ParametricInjector` to set how missing adapters are made, how many
            act, and limits on forgetting and conflicts.
        adapters: For `"parametric"` and `"combined"`: the `ParametricModel` of the `LocalChatModel`'s own model, or the
            `ServedModel` or `LlamaCppModel` of the server that a `ChatOpenAI` calls.
        server: For models of `langchain-openai`: retries, pauses, and how an answer in progress is continued.
        checkpointer: As in LangGraph. Leave it out for a subgraph, which inherits its parent's.
        interrupt_before: As in LangGraph; `["retrieve"]` lets a person review the query.
        interrupt_after: As in LangGraph.
        name: The compiled graph's name.
        **options: Parts of the method that replace the preset's; see `DynamicRAGOptions`. The prompt is the preset's,
            unless `prompt` is given; `WeightsPrompt` is the one that adapters are trained with, a tenth as long.

    Returns:
        A compiled graph. Invoke it with `{"question": ...}` or `{"messages": [...]}`. Of messages, the last one is the
        question. If turns precede it (in the call or the thread), `condense` has the model rewrite it as a question
        that stands alone, which is then searched for and answered; `condense=None` takes it as it is. System messages
        stay in the prompt, after the instructions. Only text is read; other content of the user's messages is
        reported in the result's `warnings`.

    Raises:
        ConfigurationError: If an option is unknown, of the wrong type or out of range, or no retriever is given.
        SignalUnavailableError: If the model cannot provide the signals that trigger or query formulator read.

    Example:
        >>> graph = create_dynamic_rag(LocalChatModel(), retriever, preset="dragin")  # doctest: +SKIP
        >>> graph.invoke({"question": "Who directed the film that ...?"})["answer"]  # doctest: +SKIP
    """
    refuse_unknown_options(options, "create_dynamic_rag", _PARAMETERS)
    check_value("name", name, str)
    _check_checkpointer(checkpointer)
    for argument, stops in (("interrupt_before", interrupt_before), ("interrupt_after", interrupt_after)):
        _check_stops(argument, stops)
    nodes = create_nodes(
        model, retriever, preset=preset, injection=injection, adapters=adapters, server=server, **options
    )
    builder = StateGraph(
        DynamicRAGState,
        context_schema=DynamicRAGContext,
        input_schema=DynamicRAGInput,
        output_schema=DynamicRAGOutput,
    )
    for node in filter(None, nodes):
        builder.add_node(node.node_name, node)
    last = [END] if nodes.conclude is None else ["conclude", END]
    builder.add_edge(START, "begin")
    builder.add_conditional_edges("begin", after_begin, ["retrieve", "generate"])
    builder.add_edge("generate", "monitor")
    builder.add_conditional_edges("monitor", after_monitor, ["generate", "retrieve", *last])
    builder.add_edge("retrieve", "reformulate")
    builder.add_conditional_edges("reformulate", after_reformulate, ["retrieve", "resume"])
    builder.add_conditional_edges("resume", after_resume, ["generate", *last])
    if nodes.conclude is not None:
        builder.add_edge("conclude", END)
    compiled = builder.compile(
        checkpointer=checkpointer, interrupt_before=interrupt_before, interrupt_after=interrupt_after, name=name
    )
    return DynamicRAGGraph.of(compiled)


_PARAMETERS = ("model", "retriever", *(create_dynamic_rag.__kwdefaults__ or ()))


def _without_blocking(build: Callable[_P, _R]) -> Callable[_P, Awaitable[_R]]:
    """Run a blocking function in a thread of its own; arguments, result and errors stay the same."""

    @functools.wraps(build)
    async def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return await in_own_thread(build, *args, **kwargs)

    run.__doc__ = f"Await `{build.__name__}` without blocking the event loop.\n\n{run.__doc__}"
    run.__name__ = run.__qualname__ = f"a{build.__name__}"
    return run


acreate_dynamic_rag = _without_blocking(create_dynamic_rag)
"""Await `create_dynamic_rag`, which asks servers and loads models, without blocking the event loop.

Arguments, result and errors are the same.
"""


def create_nodes(
    model: ChatModelLike,
    retriever: Retriever | None = None,
    *,
    preset: str | Path | Preset = "flare",
    injection: Injection | Injector = "context",
    adapters: AdapterModel | None = None,
    server: ServerPolicy | None = None,
    **options: Unpack[DynamicRAGOptions],
) -> DynamicRAGNodes:
    """Create the nodes alone, for a graph of your own whose state extends `DynamicRAGState`.

    Arguments and errors are those of `create_dynamic_rag`. If `conclude` is a node, `stage` says when it comes next.
    """
    injector = make_injector(model, injection, adapters)
    settings = make_settings(model, retriever, preset=preset, server=server, injector=injector, **options)
    selects = settings.selection is not None
    return DynamicRAGNodes(
        Begin(settings),
        Expand(settings) if selects else Generate(settings),
        DecideAndSelect(settings) if selects else Monitor(settings),
        Retrieve(settings),
        Reformulate(settings),
        ResumeBeam(settings) if selects else Resume(settings),
        None if settings.final_answer is None else Conclude(settings),
    )


def _check_checkpointer(checkpointer: object) -> None:
    if checkpointer is None or isinstance(checkpointer, bool | BaseCheckpointSaver):
        return
    advice = "InMemorySaver(), for example"
    if isinstance(checkpointer, type):
        advice = f"an instance: {checkpointer.__name__}()"
    elif hasattr(checkpointer, "__enter__"):  # SqliteSaver.from_conn_string gives a context manager
        advice = "what it gives in a `with` statement: with SqliteSaver.from_conn_string(path) as checkpointer"
    raise ConfigurationError(f"checkpointer is {shown(checkpointer)}; a checkpoint saver is needed. Pass {advice}")


def _check_stops(argument: str, stops: object) -> None:
    if stops is None or stops == "*":
        return
    if not isinstance(stops, list | tuple):
        raise ConfigurationError(f"{argument} is {shown(stops)}; a list is needed: {argument}=[{stops!r}]")
    for name in stops:
        if name not in _NODES:
            near = suggestion(str(name), _NODES)
            raise ConfigurationError(f"{argument} names the node {name!r}{near}; known: {', '.join(_NODES)}")
