"""The methods that are compared: presets asked for, and the baselines that are always there.

A preset that the model cannot run is kept with the reason, so that the others still run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from langgraph_dynrag.evaluation.asking import Graph
from langgraph_dynrag.evaluation.questions import EvaluationQuestion, corpus
from langgraph_dynrag.generators.wrapped_models import ChatModelLike
from langgraph_dynrag.graph import create_dynamic_rag
from langgraph_dynrag.presets.file import is_preset_file
from langgraph_dynrag.presets.methods import Preset, as_preset, get_preset
from langgraph_dynrag.retrieval.retriever import Retriever
from langgraph_dynrag.triggers.threshold import with_threshold
from rag_backbone.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from langgraph_dynrag.generators.server_policy import ServerPolicy

PresetLike = str | Path | Preset
NO_RETRIEVAL, SINGLE, LONG_CONTEXT = "no_retrieval", "single", "long_context"
BASELINES = (NO_RETRIEVAL, SINGLE, LONG_CONTEXT)
LONG_CONTEXT_TOKENS = 8192
"""Most tokens of passages that `long_context` reads; the model's context window may allow less."""


class WholeContext(BaseRetriever):
    """A retriever that returns every paragraph of one question for any query."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:  # noqa: ARG002
        return self.documents


@dataclass(frozen=True)
class Method:
    """One column of the comparison."""

    name: str
    build: Callable[[EvaluationQuestion], Graph]
    """Builds the graph that answers a question."""
    described: str
    """Everything that the method's answers depend on, apart from model, question and corpus."""
    problem: str | None = None
    """Why the model cannot run it; None if it can."""


def named_presets(presets: Iterable[PresetLike] | Mapping[str, PresetLike]) -> dict[str, Preset]:
    """Return presets by the name that the report gives them.

    Args:
        presets: Names, names with a threshold (`"flare@0.3"`), preset files, or what `get_preset` returns; as a
            mapping, with names of your own.

    Raises:
        ConfigurationError: If a preset is unknown, a threshold is not a number, or two have the same name.
    """
    if isinstance(presets, str | Path | Preset):
        presets = (presets,)
    listed = presets.items() if isinstance(presets, Mapping) else [(_name(p), p) for p in presets]
    found: dict[str, Preset] = {}
    for name, preset in listed:
        if name in found:
            raise ConfigurationError(
                f"two presets are called {name!r}; give each a name: presets={{'first': ..., 'second': ...}}"
            )
        if name == preset == LONG_CONTEXT:  # always included, and no preset
            continue
        made = _with_its_threshold(preset)
        if name == LONG_CONTEXT or (name in BASELINES and made != get_preset(name)):
            raise ConfigurationError(f"{name!r} is the name of a baseline; call the preset something else")
        found[name] = made
    return found


def make_methods(
    model: ChatModelLike,
    retriever: Retriever | None,
    questions: Sequence[EvaluationQuestion],
    presets: Mapping[str, Preset],
    *,
    long_context: int,
    server: ServerPolicy | None,
    options: Mapping[str, Any],
) -> list[Method]:
    """Return the baselines and the presets, in the order of the report, each with a graph that was built on trial.

    `long_context` searches once, with the question, for that many passages; if the questions come with paragraphs, it
    reads all of them instead. It is left out with 0.

    Raises:
        ConfigurationError: If a baseline cannot be built, because an option is wrong for any method.
    """

    def graph(preset: Preset, searcher: Retriever | None, more: Mapping[str, Any], _: Any) -> Graph:
        return create_dynamic_rag(model, searcher, preset=preset, server=server, **{**options, **more})

    wanted = {name: get_preset(name) for name in (NO_RETRIEVAL, SINGLE)} | dict(presets)
    methods = [_tried(name, partial(graph, p, retriever, {}), questions, p, options) for name, p in wanted.items()]
    if long_context:
        single = wanted[SINGLE]
        if all(q.paragraphs for q in questions):

            def build(question: EvaluationQuestion) -> Graph:
                more = {"k": len(question.paragraphs), "context_tokens": LONG_CONTEXT_TOKENS}
                return graph(single, WholeContext(documents=corpus([question])), more, question)

            told = "every paragraph of the question"
        else:
            more = {"k": long_context, "context_tokens": LONG_CONTEXT_TOKENS}
            build = partial(graph, single, retriever, more)
            told = f"{long_context} passages"
        methods.insert(2, _tried(LONG_CONTEXT, build, questions, single, {**options, LONG_CONTEXT: told}))
    return methods


def _tried(
    name: str,
    build: Callable[[EvaluationQuestion], Graph],
    questions: Sequence[EvaluationQuestion],
    preset: Preset,
    options: Mapping[str, Any],
) -> Method:
    described = repr((preset, sorted(options.items())))
    try:
        made = build(questions[0])
    except (ConfigurationError, MissingExtraError) as error:
        if name in BASELINES:  # they ask nothing of the model
            raise
        return Method(name, build, described, problem=str(error))
    # One graph answers all questions, unless its retriever belongs to the question.
    return Method(name, build if name == LONG_CONTEXT else lambda _: made, described)


def _name(preset: PresetLike) -> str:
    if isinstance(preset, Preset):
        return preset.name if preset.bundle == "paper" else f"{preset.name}_{preset.bundle}"
    return Path(preset).stem if is_preset_file(preset) else str(preset)


def _with_its_threshold(preset: PresetLike) -> Preset:
    if not isinstance(preset, str) or is_preset_file(preset) or "@" not in preset:
        return as_preset(preset)
    name, _, given = preset.partition("@")
    try:
        threshold = float(given)
    except ValueError:
        raise ConfigurationError(
            f"preset {preset!r} has the threshold {given!r}; a number is needed, such as flare@0.3"
        ) from None
    made = get_preset(name)
    trigger = with_threshold(made.settings["trigger"], threshold)
    return replace(made, settings={**made.settings, "trigger": trigger})
