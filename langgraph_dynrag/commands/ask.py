"""`dynprag ask`: one question through the graph, with evidence in the prompt, in the model's weights, or in both."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from langgraph_dynrag.commands.options import (
    DEFAULT_INDEX,
    DEFAULT_STORE,
    BaseURL,
    BundleOption,
    IndexFolder,
    MaxRetrievals,
    MaxSeconds,
    MaxTokens,
    Model,
    Passages,
    PresetOption,
    Quiet,
    SearchOption,
    Threshold,
    chat_of,
    method_of,
    refuse_given,
)
from langgraph_dynrag.evidence import name_of
from rag_backbone.console import as_json as json_line
from rag_backbone.console import console
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import is_blank

if TYPE_CHECKING:
    from langgraph_dynrag.trace.trace import Trace

Where = Literal["context", "parametric", "combined"]
Missing = Literal["train", "translate", "context"]
Route = Literal["retrieval", "lexical", "ask"]
Merge = Literal["mean", "sum", "score", "orthogonal", "shared_once"]
Ensemble = Literal["mixture", "product"]
_SHORT_ANSWER = 48
"""Tokens of an answer under the prompt that adapters are trained with, unless `--max-tokens` says otherwise."""


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    index: IndexFolder = DEFAULT_INDEX,
    preset: PresetOption = None,
    bundle: BundleOption = "paper",
    model: Model = "embedded",
    base_url: BaseURL = None,
    retriever: SearchOption = "hybrid",
    injection: Annotated[
        Where, typer.Option(help="Where evidence goes: the prompt, the model's weights, or both.")
    ] = "context",
    missing: Annotated[
        Missing | None,
        typer.Option(
            help="What happens to a passage without an adapter. Default: translate with --translator, context with "
            "--base-url, else train.",
        ),
    ] = None,
    route: Annotated[
        Route | None,
        typer.Option(
            help="How the passage whose adapter acts is chosen: by its retrieval score, by that and the words shared "
            "with the question, or by asking every adapter. Default: lexical.",
        ),
    ] = None,
    max_active: Annotated[
        int | None, typer.Option(min=1, help="How many passages act through their adapters at once. Default: 1.")
    ] = None,
    merge: Annotated[
        Merge | None, typer.Option(help="How the updates of several passages are combined. Default: mean.")
    ] = None,
    ensemble: Annotated[
        Ensemble | None,
        typer.Option(help="Let each adapter answer alone instead, and mix their next-token distributions."),
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", "-s", help=f"The adapters' folder or URL. Default: {DEFAULT_STORE}.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe of the adapters, such as distill or alora. Default: distill.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another value of the recipe, as given to `dynprag parametrize`; may be repeated.",
        ),
    ] = None,
    translator: Annotated[str | None, typer.Option(help="Folder of a translator.")] = None,
    k: Passages = None,
    threshold: Threshold = None,
    max_retrievals: MaxRetrievals = None,
    max_tokens: MaxTokens = None,
    max_seconds: MaxSeconds = None,
    trace: Annotated[Path | None, typer.Option(help="Write an HTML view of the run.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print answer, sources and trace as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Ask a question; the model retrieves while it writes.

    With --injection parametric or combined, retrieved passages act through their adapters; unless --preset names a
    method, there is one search, and the question is asked in the words that adapters are trained with.

    --json prints one line with the keys question, answer, short_answer, sources, trace (what happened, event by
    event), counts and seconds.
    """
    quiet = quiet or console().quiet
    if is_blank(question):
        raise ConfigurationError('the question is empty; ask something: dynprag ask "Who built the bridge?"')
    injects = injection != "context"
    into_weights: dict[str, Any] = {"--store": store, "--missing": missing, "--route": route, "--merge": merge}
    into_weights |= {"--translator": translator, "--max-active": max_active, "--ensemble": ensemble}
    if not injects:
        refuse_given(
            into_weights | {"--recipe": recipe, "--change": change or None},
            "only used with --injection parametric or combined",
        )
    if (max_active or 1) == 1:
        refuse_given(
            {"--merge": merge, "--ensemble": ensemble},
            "combines the adapters of several passages, but one acts (--max-active 1); add --max-active 3",
        )
    from langgraph_dynrag.graph import create_dynamic_rag
    from langgraph_dynrag.trace.trace import Trace

    bare = injects and preset is None
    name = preset or ("single" if injects else "flare")
    tokens = _SHORT_ANSWER if bare and max_tokens is None else max_tokens
    limits = {"retrievals": max_retrievals, "tokens": tokens, "seconds": max_seconds}
    method, options = method_of(name, bundle, k=k, threshold=threshold, **limits)
    searcher = None  # opened first: a missing index is found before a model is loaded
    if name != "no_retrieval":
        from langgraph_dynrag.retrieval import LocalIndex

        searcher = LocalIndex(index).as_retriever(retriever)
    with ExitStack() as stack:
        if injection != "context":
            from langgraph_dynrag.assembly import check_ensemble
            from langgraph_dynrag.injection.parametric import WeightsPrompt, opened_injector

            given_ways = {"missing": missing, "route": route, "merge": merge, "ensemble": ensemble}
            ways: dict[str, Any] = {way: option for way, option in given_ways.items() if option is not None}
            check_ensemble(ways.get("ensemble"), {**method.settings, **options})
            chat, options["injection"] = stack.enter_context(
                opened_injector(
                    model,
                    store or DEFAULT_STORE,
                    injection=injection,
                    max_active=max_active,
                    recipe=recipe,
                    changes=change or (),
                    translator=translator,
                    chat=None if base_url is None else chat_of(model, base_url),
                    base_url=base_url,
                    progress=console().shows_progress,
                    **ways,
                )
            )
            if bare:
                options["prompt"] = WeightsPrompt()
        else:
            chat = chat_of(model, base_url)
        graph = create_dynamic_rag(chat, searcher, preset=method, **options)
        told = Trace.from_state(_stream(graph, question, show=not (as_json or quiet)))
    if trace is not None:
        told.save_html(trace)
    if as_json:
        typer.echo(json_line(told.to_dict()))
    elif quiet:
        typer.echo(told.answer)
    else:
        _conclude(told, trace)


def _stream(graph: Any, question: str, *, show: bool) -> dict[str, Any]:
    """Run the graph; accepted text goes to stdout as it arrives, searches and adapters to stderr."""
    result: dict[str, Any] = {}
    for mode, part in graph.stream({"question": question}, stream_mode=["messages", "custom", "values"]):
        if mode == "values":
            result = part
        elif show and mode == "messages":
            typer.echo(part[0].content, nl=False)
        elif show and mode == "custom" and (line := _line(part)):
            typer.secho(f"\n{line}", err=True, dim=True)
    if show:
        typer.echo()
    return result


def _line(event: dict[str, Any]) -> str:
    """Return an event as text for the terminal; empty for kinds that are not shown."""
    if event["type"] == "retrieval":
        titles = "; ".join(name_of(d) for d in event["documents"]) or event["error"] or "nothing"
        return f"  [searched: {event['query']}]\n  [found: {titles}]"
    if event["type"] == "injection":
        counts = [f"{len(event['in_weights'])} in the weights"]
        counts += [f"{event[key]} {key}" for key in ("trained", "translated") if event[key]]
        return f"  [adapters: {', '.join(counts)}]"
    return ""


def _conclude(told: Trace, trace: Path | None) -> None:
    if told.short_answer != told.answer:
        typer.secho(f"\n{told.short_answer}", bold=True)
    for source in told.sources:
        typer.echo(f"  [{source['number']}] {name_of(source)}")
    if trace is not None:
        typer.secho(f"  trace: {trace}", err=True, dim=True)
