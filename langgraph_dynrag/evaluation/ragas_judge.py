"""Metrics of ragas as judges, by name (extra `ragas`).

The metrics are the classes of `ragas.metrics.collections`. What one reads and which models it asks are taken from its
signatures, so that a metric of a later version is found too.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel

from langgraph_dynrag.evaluation.judges import Need, model_name
from rag_backbone.aio import in_thread_that_ends
from rag_backbone.checks import clause, refuse_unknown, suggestion
from rag_backbone.errors import ConfigurationError
from rag_backbone.extras import needed_for

PREFIX = "ragas:"
"""What distinguishes a metric of ragas from an evaluator of LangChain on the command line."""
_NEED_OF: Mapping[str, Need] = {"reference": "reference", "retrieved_contexts": "contexts"}
_READ = ("user_input", "response", *_NEED_OF)
"""The fields of a sample that an evaluation has."""
_LOWER_IS_BETTER = ("noise_sensitivity",)


@dataclass(frozen=True)
class RagasJudge:
    """A metric of ragas as a judge."""

    name: str
    metric: Any = field(repr=False)
    """Has `ascore`, as ragas' `BaseMetric`."""
    reads: tuple[str, ...]
    """The fields of a sample that `ascore` takes."""
    needs: frozenset[Need]

    def __call__(self, question: str, answer: str, reference: str, contexts: Sequence[str]) -> float:
        """Return the metric's score.

        Raises:
            ValueError: If the metric gave none.
        """
        sample = {
            "user_input": question,
            "response": answer,
            "reference": reference,
            "retrieved_contexts": list(contexts),
        }
        given = {name: sample[name] for name in self.reads if sample[name]}
        # In a thread of its own, because the caller's may be running an event loop, such as that of a notebook.
        result = in_thread_that_ends(lambda: asyncio.run(self.metric.ascore(**given)))
        score = float(result.value)
        if math.isnan(score):
            raise ValueError(f"{self.name} gave no score (nan)")
        return score


def ragas_judge(
    name: str, model: BaseChatModel | None = None, *, embeddings: Embeddings | None = None, **options: Any
) -> RagasJudge:
    """Return a metric of ragas as a judge, by its name, such as `"faithfulness"` or `"context_recall"`.

    Args:
        name: A class of `ragas.metrics.collections`, in snake case.
        model: The model that judges, for metrics that ask one; its replies have to follow a schema
            (`with_structured_output`).
        embeddings: For metrics that compare embeddings, such as `MiniLMEmbeddings()`.
        **options: Options of the metric, such as `rubrics`.

    Raises:
        MissingExtraError: If ragas is not installed.
        ConfigurationError: If there is no such metric, it reads what an evaluation does not have, such as tool calls,
            or it needs a model or embeddings and got none.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"the judge is {name!r}; the name of a metric is needed, such as 'faithfulness'")
    wanted = name.removeprefix(PREFIX)
    shown = PREFIX + wanted
    with needed_for(f"the judge {shown!r}"):
        import ragas
        from ragas.metrics import collections
    kind = _metric_called(wanted, collections)
    refuse_unknown(options, _parameters(kind.__init__).keys() - {"llm", "embeddings", "name"}, shown)
    models = _models(kind, wanted, model, embeddings)
    reads = _parameters(kind.ascore)
    needs: set[Need] = {_NEED_OF[n] for n, p in reads.items() if n in _NEED_OF and _required(p)}
    by = f" by {' and '.join(model_name(m) for m, _ in models.values())}" if models else ""
    told = f" {options}" if options else ""
    lower = ", lower is better" if wanted in _LOWER_IS_BETTER else ""
    label = f"{shown}{by}{told} (ragas {ragas.__version__}{lower})"
    try:
        metric = kind(**options, **{name: adapted for name, (_, adapted) in models.items()})
        if getattr(metric, "with_reference", False):  # a rubric, whose signature has no required argument
            needs.add("reference")
        judge = RagasJudge(label, metric, tuple(n for n in reads if n in _READ), frozenset(needs))
        if not models:  # tried now, because some import what they need only when they score
            with contextlib.suppress(ValueError):
                judge("a", "a", "a", ["a"])
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigurationError(f"the judge {shown} cannot be made: {clause(error)}") from error
    return judge


def _metric_called(name: str, collections: Any) -> Any:
    """Return the class of a metric that can judge answers.

    Raises:
        ConfigurationError: If there is none of this name, or it cannot.
    """
    classes = {n: getattr(collections, n) for n in collections.__all__}
    metrics = {_snake(n): kind for n, kind in classes.items() if _is_metric(kind, collections.BaseMetric)}
    known = sorted(n for n, kind in metrics.items() if _problem(kind) is None)
    if name not in metrics:
        raise ConfigurationError(
            f"there is no metric {name!r} of ragas{suggestion(name, known)}; known: {', '.join(known)}"
        )
    if (problem := _problem(metrics[name])) is not None:
        raise ConfigurationError(f"{PREFIX}{name} {problem}; metrics that can judge answers: {', '.join(known)}")
    return metrics[name]


def _models(
    kind: Any, name: str, model: BaseChatModel | None, embeddings: Embeddings | None
) -> dict[str, tuple[BaseChatModel | Embeddings, Any]]:
    """Return the models that a metric asks, by the argument that takes each: LangChain's, and as ragas calls it.

    Raises:
        ConfigurationError: If one is missing, or cannot judge.
    """
    from langgraph_dynrag.evaluation.ragas_models import StructuredModel, TextEmbeddings

    takes = _parameters(kind.__init__)
    found: dict[str, tuple[BaseChatModel | Embeddings, Any]] = {}
    if "llm" in takes:
        if model is None:
            raise ConfigurationError(f"{PREFIX}{name} asks a model; pass one: ragas_judge({name!r}, model)")
        found["llm"] = (model, StructuredModel(model))
    if "embeddings" in takes and embeddings is not None:
        found["embeddings"] = (embeddings, TextEmbeddings(embeddings))
    elif "embeddings" in takes and _required(takes["embeddings"]):
        line = f"ragas_judge({name!r}, {'model, ' if 'llm' in takes else ''}embeddings=MiniLMEmbeddings())"
        raise ConfigurationError(f"{PREFIX}{name} compares embeddings; pass some: {line}")
    return found


def _is_metric(kind: Any, base: type) -> bool:
    return inspect.isclass(kind) and issubclass(kind, base) and kind is not base


def _problem(kind: Any) -> str | None:
    """Return why a metric cannot judge the answers of an evaluation; None if it can."""
    reads = _parameters(kind.ascore)
    if "Message" in str(reads["user_input"].annotation if "user_input" in reads else ""):
        return "judges conversations, not single answers"
    missing = [n for n, p in reads.items() if n not in _READ and _required(p)]
    if missing:
        return f"reads {' and '.join(missing)}, which an evaluation does not have"
    model = _parameters(kind.__init__).get("llm")
    # Annotations are strings there.
    if model is not None and "Base" not in str(model.annotation):
        return "sends images through a client of ragas' own"
    return None


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    every = inspect.signature(function).parameters
    return {n: p for n, p in every.items() if n != "self" and p.kind is not p.VAR_KEYWORD}


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
