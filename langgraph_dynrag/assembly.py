"""From a preset, a model and options to validated settings: what `create_dynamic_rag` and `create_nodes` share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_args

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.draft import MODEL_STATES, Signal
from langgraph_dynrag.generators.local import make_generator
from langgraph_dynrag.generators.server_policy import SERVER_STATES
from langgraph_dynrag.generators.wrapped_models import ChatModelLike, plain_models
from langgraph_dynrag.injection.injector import Injection, Injector
from langgraph_dynrag.options import DynamicRAGOptions, refuse_unknown_options
from langgraph_dynrag.presets.file import refuse_another, warn_of_another
from langgraph_dynrag.presets.methods import Preset, as_preset
from langgraph_dynrag.prompts import AnswerPrompt, reasoned_prompt
from langgraph_dynrag.reflection.base import Reflector, SegmentSelection
from langgraph_dynrag.retrieval.retriever import Retriever, check_retriever
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.triggers.base import check_needs, check_trigger
from langgraph_dynrag.triggers.learned import LearnedTrigger
from rag_backbone.checks import suggestion
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_options, check_value

if TYPE_CHECKING:
    from langgraph_dynrag.generators.server_policy import ServerPolicy
    from langgraph_dynrag.injection.parametric import AdapterModel

_INJECTIONS = get_args(Injection)
_READING = ("trigger", "query", "evidence_selector", "final_answer")
"""The settings that may need signals."""
_PARAMETERS = ("model", "retriever", "preset", "injection", "adapters", "server")


def make_injector(
    model: ChatModelLike, injection: Injection | Injector, adapters: AdapterModel | None
) -> Injector | None:
    """Return what puts evidence into the model's parameters, or None if all of it stands in the prompt.

    Raises:
        ConfigurationError: If `injection` is unknown, or the model has no adapters to use.
    """
    if not isinstance(injection, str):
        if not isinstance(injection, Injector):
            raise ConfigurationError(
                f"injection is {injection!r}; an Injector, or one of {', '.join(_INJECTIONS)}, is needed"
            )
        if adapters is not None:
            raise ConfigurationError("adapters: the injector has its own adapters; leave this argument out")
        if (own := getattr(injection, "adapters", None)) is not None:
            _check_adapters(model, own, injection.injection)
        return injection
    if injection not in _INJECTIONS:
        near = suggestion(injection, _INJECTIONS)
        raise ConfigurationError(f"injection is {injection!r}{near}; known: {', '.join(_INJECTIONS)}")
    if injection == "context":
        if adapters is not None:
            raise ConfigurationError(
                "adapters: injection='context' uses no adapters. Leave the argument out, or choose "
                "injection='parametric' or 'combined'."
            )
        return None
    _check_adapters(model, adapters, injection)
    from langgraph_dynrag.injection.parametric import ParametricInjector

    assert adapters is not None
    return ParametricInjector(adapters, injection=injection)


def _check_adapters(model: ChatModelLike, adapters: AdapterModel | None, injection: str) -> None:
    """Refuse adapters that do not belong to the chat model."""
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


def check_ensemble(ensemble: str | None, parts: Mapping[str, Any]) -> None:
    """Refuse parts that read attention or hidden states if an ensemble writes, which has no single forward pass.

    Args:
        ensemble: How distributions are mixed; None if updates are merged.
        parts: The settings by name.

    Raises:
        ConfigurationError: If a part reads the states of a single forward pass.
    """
    for name in _READING if ensemble is not None else ():
        part = parts.get(name)
        states: frozenset[Signal] = getattr(part, "needs", frozenset()) & MODEL_STATES
        if states:
            raise ConfigurationError(
                f"{name}={part!r} needs {', '.join(sorted(states))} of a single forward pass, but with "
                f"ensemble={ensemble!r} each adapter has its own. Use another {name}, or merge the adapters "
                "(ensemble=None)."
            )


def check_served_states(injector: Injector | None, needs: frozenset[Signal], server: ServerPolicy | None) -> None:
    """Refuse adapters whose effect a hidden-state server does not see.

    Args:
        injector: Where evidence goes; None for the prompt.
        needs: Signals that the graph reads.
        server: The chat server's policy.

    Raises:
        ConfigurationError: If adapters may be active, and hidden states of a server are read.
    """
    if server is None or server.states is None or getattr(injector, "adapters", None) is None:
        return
    if needs & SERVER_STATES:
        raise ConfigurationError(
            f"{server.states!r} reads without adapters, so its states would not be those of the answer. Use "
            "injection='context', a trigger that needs no hidden states, or LocalChatModel."
        )


def make_settings(
    model: ChatModelLike,
    retriever: Retriever | None,
    *,
    preset: str | Path | Preset = "flare",
    server: ServerPolicy | None = None,
    injector: Injector | None = None,
    **options: Unpack[DynamicRAGOptions],
) -> Settings:
    """Return a preset's settings with options in place of its parts, validated.

    Arguments and errors are those of `create_dynamic_rag`.
    """
    refuse_unknown_options(options, "create_nodes", _PARAMETERS)
    given: dict[str, Any] = dict(options)
    prompt = given.pop("prompt", None)
    check_value("prompt", prompt, AnswerPrompt | None)
    if server is not None:
        from langgraph_dynrag.generators.server_policy import ServerPolicy as Policy

        check_value("server", server, Policy)
    if retriever is not None:
        check_retriever(retriever)
    chosen = as_preset(preset)
    parts = {**chosen.settings, **given}
    check_options(Settings, parts)
    check_trigger(parts["trigger"])
    check_needs(parts["query"])
    reading = {name: parts.get(name) for name in _READING}
    needs: frozenset[Signal] = frozenset().union(*(getattr(part, "needs", frozenset()) for part in reading.values()))
    check_ensemble(getattr(injector, "ensemble", None), reading)
    check_served_states(injector, needs, server)
    generator = make_generator(model, needs, server, reading)
    selection = parts.get("selection")
    reflector = None if selection is None else make_reflector(model, selection)
    own_prompt = None if reflector is None else reflector.prompt
    prompt = prompt or chosen.prompt or own_prompt or reasoned_prompt(chosen.exemplars)
    if chosen.calibrated_for is not None and "trigger" not in given:
        check = refuse_another if isinstance(parts["trigger"], LearnedTrigger) else warn_of_another
        check(chosen.calibrated_for, model, prompt)
    return Settings(
        generator=generator,
        retriever=retriever,
        prompt=prompt,
        reflector=reflector,
        injector=injector,
        preset=chosen.name,
        **parts,
    )


def make_reflector(model: ChatModelLike, selection: SegmentSelection) -> Reflector:
    """Return what writes and judges continuations. Looking for reflection tokens loads the model.

    Raises:
        ConfigurationError: If the model is not local, or lacks reflection tokens that it needs.
    """
    if not isinstance(selection, SegmentSelection):
        raise ConfigurationError(
            f"selection is {selection!r}; a SegmentSelection is needed, such as SegmentSelection()"
        )
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
