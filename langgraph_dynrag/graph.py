"""Putting a model, a retriever and a method together into a LangGraph state machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.compiled_graph import DynamicRAGGraph
from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.generators.local import make_generator
from langgraph_dynrag.generators.wrapped_models import ChatModelLike, plain_models
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
from langgraph_dynrag.presets.file import warn_of_another
from langgraph_dynrag.presets.methods import Dataset, get_preset
from langgraph_dynrag.prompts import AnswerPrompt, reasoned_prompt
from langgraph_dynrag.queries.base import check_formulator
from langgraph_dynrag.reflection import Reflector, SegmentSelection
from langgraph_dynrag.retrieval.retriever import Retriever, check_retriever
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import DynamicRAGContext, DynamicRAGInput, DynamicRAGOutput, DynamicRAGState
from langgraph_dynrag.triggers.base import check_trigger
from rag_backbone.aio import in_own_thread
from rag_backbone.checks import refuse_unknown, shown, suggestion
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_options, check_value

if TYPE_CHECKING:
    from langgraph_dynrag.generators.server_policy import ServerPolicy
    from langgraph_dynrag.injection.parametric import AdapterModel, Missing


_WHERE = get_args(Injection)
CHANGES = frozenset(Settings.__dataclass_fields__) - {"generator", "retriever", "prompt", "reflector", "injector"}
"""Fields of `Settings` that are arguments of `create_dynamic_rag`."""
ARGUMENTS = frozenset(
    {
        "model",
        "retriever",
        "preset",
        "dataset",
        "bundle",
        "prompt",
        "injection",
        "adapters",
        "missing",
        "forgetting",
        "conflicts",
        "server",
        "checkpointer",
        "interrupt_before",
        "interrupt_after",
        "name",
    }
)


class DynamicRAGNodes(NamedTuple):
    """The nodes of one configuration, for use in a graph of one's own."""

    begin: Begin
    generate: Generate
    monitor: Monitor
    retrieve: Retrieve
    reformulate: Reformulate
    resume: Resume
    conclude: Conclude | None = None
    """Where the settings have a `final_answer`: `monitor` and `resume` lead there with the stage `concluding`."""


def create_dynamic_rag(
    model: ChatModelLike,
    retriever: Retriever | None = None,
    *,
    preset: str | Path = "flare",
    dataset: Dataset = "2wikimultihopqa",
    bundle: Literal["paper", "reference"] = "paper",
    prompt: AnswerPrompt | None = None,
    injection: Injection | Injector = "context",
    adapters: AdapterModel | None = None,
    missing: Missing = "train",
    forgetting: float | None = None,
    conflicts: str | None = None,
    server: ServerPolicy | None = None,
    checkpointer: Checkpointer = None,
    interrupt_before: list[str] | Literal["*"] | None = None,
    interrupt_after: list[str] | Literal["*"] | None = None,
    name: str = "dynamic_rag",
    **changes: Any,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A graph that retrieves while it writes.

    Args:
        model: `LocalChatModel`, or any chat model that reports log-probabilities as OpenAI's do; also within
            LangChain's `bind`, `with_config`, `with_retry` and `with_fallbacks`.
        retriever: Any LangChain retriever. Only `no_retrieval` does without one.
        preset: A published method, see `langgraph_dynrag.presets.methods`; or a file that `calibrate` wrote.
        dataset: Whose published settings the preset takes.
        bundle: The form of `dragin` and `etc`.
        prompt: Instructions, exemplars and layout; by default the preset's, or the project's own with the preset's
            number of exemplars. `injection.WeightsPrompt` is the one that adapters are trained with, a tenth as long.
        injection: Where the evidence goes: in the `"context"`, into the model's parameters (`"parametric"`), or both
            (`"combined"`, the adapters weakened). Or an `Injector`, such as a `ParametricInjector` with bounds of its
            own, in the place of the next four.
        adapters: For the last two: the `ParametricModel` of the `LocalChatModel`'s own model, or the `ServedModel` of
            the vLLM server that a `ChatOpenAI` asks.
        missing: For the last two, what becomes of a passage without an adapter: `"train"` it (a minute), `"translate"`
            it (milliseconds; needs a translator), or leave it in the `"context"`.
        forgetting: For the last two, the most that adapters may change the model's answers to unrelated questions, in
            nats a token; 0.01 is safe, see `llamaindex_prag.guards.forgetting`. None: not measured.
        conflicts: For the last two, what becomes of passages that contradict each other about the question: `"mean"`,
            `"score-weighted"`, `"latest"` or `"context"`; see `llamaindex_prag.guards.conflict_policies`. None: not
            measured.
        server: For models of `langchain-openai`: how their server is asked (retries, pauses, how an answer in progress
            is continued). None: the defaults of `ServerPolicy`.
        checkpointer: As in LangGraph. Leave it out for a subgraph, which inherits its parent's.
        interrupt_before: As in LangGraph; `["retrieve"]` lets a person look at the query.
        interrupt_after: As in LangGraph.
        name: Of the compiled graph.
        **changes: Any field of `langgraph_dynrag.settings.Settings`, in place of the preset's: `trigger`, `query`, `k`,
            `resume_at`, `evidence_life`, `budgets`, `reformulation`, `retrieval`, `condense`, ...

    Returns:
        A compiled graph. Invoke it with `{"question": ...}` or `{"messages": [...]}`. Of messages the last one, the
        user's, is the question. If there are turns before it (of the call or of the thread), `condense` has the model
        write it as a question that stands alone, which is searched for and answered; `condense=None` takes it as it
        is. System messages stay in the prompt, behind the instructions. Only text is read; what else there is in
        the user's messages is told in the result's `warnings`.

    Raises:
        ConfigurationError: If an option is unknown or out of range, or no retriever is given.
        SignalUnavailableError: If the model cannot give what trigger or query formulator need.

    Example:
        >>> graph = create_dynamic_rag(LocalChatModel(), retriever, preset="dragin")  # doctest: +SKIP
        >>> graph.invoke({"question": "Who directed the film that ...?"})["answer"]  # doctest: +SKIP
    """
    check_value("name", name, str)
    _check_checkpointer(checkpointer)
    for argument, stops in (("interrupt_before", interrupt_before), ("interrupt_after", interrupt_after)):
        _check_stops(argument, stops)
    nodes = create_nodes(
        model,
        retriever,
        preset=preset,
        dataset=dataset,
        bundle=bundle,
        prompt=prompt,
        injection=injection,
        adapters=adapters,
        missing=missing,
        forgetting=forgetting,
        conflicts=conflicts,
        server=server,
        **changes,
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


async def acreate_dynamic_rag(*args: Any, **kwargs: Any) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The same for an event loop, which stays free while a server is asked what it can do or a model is loaded.

    Arguments, result and errors are those of `create_dynamic_rag`.
    """
    return await in_own_thread(create_dynamic_rag, *args, **kwargs)


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


def create_nodes(
    model: ChatModelLike,
    retriever: Retriever | None = None,
    *,
    preset: str | Path = "flare",
    dataset: Dataset = "2wikimultihopqa",
    bundle: Literal["paper", "reference"] = "paper",
    prompt: AnswerPrompt | None = None,
    injection: Injection | Injector = "context",
    adapters: AdapterModel | None = None,
    missing: Missing = "train",
    forgetting: float | None = None,
    conflicts: str | None = None,
    server: ServerPolicy | None = None,
    **changes: Any,
) -> DynamicRAGNodes:
    """The nodes alone, to put into a graph of one's own whose state extends `DynamicRAGState`.

    Arguments and errors are those of `create_dynamic_rag`. Where `conclude` is a node, `stage` says when it is next.
    """
    injector = make_injector(model, injection, adapters, missing, forgetting=forgetting, conflicts=conflicts)
    settings = make_settings(
        model,
        retriever,
        preset=preset,
        dataset=dataset,
        bundle=bundle,
        prompt=prompt,
        server=server,
        injector=injector,
        **changes,
    )
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


_NODES = DynamicRAGNodes._fields


def make_injector(
    model: ChatModelLike,
    injection: Injection | Injector,
    adapters: AdapterModel | None,
    missing: Missing,
    *,
    forgetting: float | None = None,
    conflicts: str | None = None,
) -> Injector | None:
    """Who puts the evidence into the parameters; None where it stands in the prompt.

    Raises:
        ConfigurationError: If the model has no adapters to put anything in.
    """
    check_value("forgetting", forgetting, float | None)
    given = {"adapters": adapters, "forgetting": forgetting, "conflicts": conflicts}
    named = ", ".join(name for name, value in given.items() if value is not None)
    if not isinstance(injection, str):
        if not isinstance(injection, Injector):
            raise ConfigurationError(
                f"injection is {injection!r}; an Injector, or one of {', '.join(_WHERE)}, is needed"
            )
        if named:
            raise ConfigurationError(f"{named}: given beside an injector, which has its own. Leave it out.")
        if (own := getattr(injection, "adapters", None)) is not None:
            _check_adapters(model, own, injection.mode)
        return injection
    if injection not in _WHERE:
        raise ConfigurationError(f"injection is {injection!r}; known: {', '.join(_WHERE)}")
    if injection == "context":
        if named:
            raise ConfigurationError(
                f"{named}: given, and injection='context' uses no adapters. Leave it out, or choose "
                "injection='parametric' or 'combined'."
            )
        return None
    _check_adapters(model, adapters, injection)
    from langgraph_dynrag.injection.parametric import ParametricInjector

    assert adapters is not None
    return ParametricInjector(adapters, mode=injection, missing=missing, forgetting=forgetting, conflicts=conflicts)


def _check_adapters(model: ChatModelLike, adapters: AdapterModel | None, injection: str) -> None:
    """Refuse adapters that are not the chat model's own."""
    plains = plain_models(model)
    if len(plains) > 1:
        raise ConfigurationError(
            f"injection={injection!r} changes the parameters of one model, and with fallbacks another may answer. Give "
            "one model, or use injection='context'."
        )
    model = plains[0].chat
    in_server = adapters is not None and adapters.in_server
    if not (in_server or isinstance(model, LocalChatModel)):
        raise ConfigurationError(
            f"injection={injection!r} changes the model's parameters, and those of {type(model).__name__} are not "
            "here. Use LocalChatModel, or injection='context'."
        )
    if adapters is None:
        raise ConfigurationError(
            f"injection={injection!r} needs the model's adapters: lm = CausalLM.from_pretrained(...), "
            "model=LocalChatModel.from_causal_lm(lm), adapters=ParametricModel.of(lm, LMDBStore(folder, "
            "model=lm.fingerprint)). Or use injection='context'."
        )
    adapters.check_chat_model(model)


def make_settings(
    model: ChatModelLike,
    retriever: Retriever | None,
    *,
    preset: str | Path,
    dataset: Dataset,
    bundle: Literal["paper", "reference"],
    prompt: AnswerPrompt | None,
    server: ServerPolicy | None = None,
    injector: Injector | None = None,
    **changes: Any,
) -> Settings:
    """A preset's settings with changes, validated; arguments and errors as for `create_dynamic_rag`."""
    refuse_unknown(changes, CHANGES | ARGUMENTS, "create_dynamic_rag")
    check_value("prompt", prompt, AnswerPrompt | None)
    if server is not None:
        from langgraph_dynrag.generators.server_policy import ServerPolicy as Policy

        check_value("server", server, Policy)
    if retriever is not None:
        check_retriever(retriever)
    chosen = get_preset(preset, dataset=dataset, bundle=bundle)
    options = {**chosen.settings, **changes}
    check_options(Settings, options)
    check_trigger(options["trigger"])
    check_formulator(options["query"])
    parts = {name: options.get(name) for name in ("trigger", "query", "evidence_selector", "final_answer")}
    needs: frozenset[Signal] = frozenset().union(*(getattr(part, "needs", frozenset()) for part in parts.values()))
    generator = make_generator(model, needs, server, parts)
    selection = options.get("selection")
    reflector = None if selection is None else make_reflector(model, selection)
    own_prompt = None if reflector is None else reflector.prompt
    prompt = prompt or chosen.prompt or own_prompt or reasoned_prompt(chosen.exemplars)
    if chosen.calibrated_for is not None and "trigger" not in changes:
        warn_of_another(chosen.calibrated_for, model, prompt)
    return Settings(
        generator=generator, retriever=retriever, prompt=prompt, reflector=reflector, injector=injector, **options
    )


def make_reflector(model: ChatModelLike, selection: SegmentSelection) -> Reflector:
    """What writes and judges continuations; looking for reflection tokens loads the model.

    Raises:
        ConfigurationError: If the model is not a local one, or lacks reflection tokens that it needs.
    """
    if not isinstance(selection, SegmentSelection):
        raise ConfigurationError(f"selection is {selection!r}; a Selection is needed, such as Selection()")
    model = plain_models(model)[0].chat
    if not isinstance(model, LocalChatModel):
        raise ConfigurationError(
            f"a selection reads the probabilities of given tokens, which {type(model).__name__} does not report. "
            "Use LocalChatModel, or another preset."
        )
    from langgraph_dynrag.reflection.instruct import InstructReflector
    from langgraph_dynrag.reflection.tokens import TokenReflector
    from langgraph_dynrag.reflection.vocabulary import find

    if selection.path == "tokens" or (selection.path == "auto" and find(model.lm)):
        return TokenReflector(model, selection)
    return InstructReflector(model, selection)
