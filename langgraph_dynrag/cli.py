"""`dynprag index`, `dynprag ask` and `dynprag graph`; `dynprag calibrate` is `calibration.cli`."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraph_dynrag.cli_options import BaseURL, chat_of
from langgraph_dynrag.evidence import name_of
from langgraph_dynrag.presets.file import is_preset_file
from langgraph_dynrag.presets.methods import PRESETS, get_preset
from langgraph_dynrag.triggers.threshold import with_threshold
from rag_backbone.console import as_json as json_line
from rag_backbone.console import be_quiet, console, given_path
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import is_blank

if TYPE_CHECKING:
    from langgraph_dynrag.trace.trace import Trace

DEFAULT_INDEX = Path(".dynprag/index")
DEFAULT_STORE = Path(".dynprag/adapters")
Bundle = StrEnum("Bundle", {"paper": "paper", "reference": "reference"})
Inject = StrEnum("Inject", ["prompt", "parametric", "combined", "translated"])
Retriever = StrEnum("Retriever", {"hybrid": "hybrid", "dense": "dense", "bm25": "bm25"})

IndexFolder = Annotated[
    Path, typer.Option("--index", "-i", help="The index's folder.", parser=given_path, metavar="FOLDER")
]


def quiet_if(wanted: bool) -> bool:
    """Hush what is not a result, as soon as the option is read."""
    be_quiet(wanted=wanted)
    return wanted


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result alone.", callback=quiet_if, is_eager=True)]


def known_preset(name: str | None) -> str | None:
    """The name of a preset, or of a preset file; refused as Typer refuses a choice."""
    if name is None or name in PRESETS or is_preset_file(name):
        return name
    raise typer.BadParameter(f"{name!r} is none of {', '.join(PRESETS)}, and no preset file (.json).")


Preset = Annotated[
    str | None,
    typer.Option(
        help=f"The method: {', '.join(PRESETS)}, or a file of `dynprag calibrate`; default: flare.",
        callback=known_preset,
        metavar="NAME|FILE",
    ),
]


def register(app: typer.Typer) -> None:
    """Add this package's subcommands."""
    from langgraph_dynrag.calibration.cli import calibrate

    app.command("index")(index)
    app.command("ask")(ask)
    app.command("graph")(graph)
    app.command("calibrate")(calibrate)


def index(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder, or a file, of documents.", parser=given_path, metavar="[FOLDER|FILE]"),
    ] = None,
    into: IndexFolder = DEFAULT_INDEX,
    characters: Annotated[int, typer.Option(help="Characters of a chunk at most.")] = 900,
    overlap: Annotated[int, typer.Option(help="Characters that neighbouring chunks share.")] = 100,
    encoding: Annotated[str | None, typer.Option(help="Of files that are not UTF-8, such as cp1252.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Glob pattern to leave out; may be repeated.")] = None,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            help="Remove what came from this folder, file or other source; may be repeated.", metavar="SOURCE"
        ),
    ] = None,
    *,
    listing: Annotated[bool, typer.Option("--list", help="List what the index was filled from.")] = False,
    hidden: Annotated[bool, typer.Option("--hidden", help="Read hidden files and tool folders as well.")] = False,
    _quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Index documents, list what was indexed, or remove it. Files that have not changed cost nothing."""
    from dataclasses import asdict

    from langgraph_dynrag.retrieval import LocalIndex, Splitter

    asked = {"FOLDER": folder is not None, "--forget": bool(forget), "--list": listing}
    if sum(asked.values()) != 1:
        given = " and ".join(name for name, is_given in asked.items() if is_given) or "nothing"
        raise ConfigurationError(f"{given} was given; give one of FOLDER, --forget SOURCE and --list")
    built = LocalIndex(into, splitter=Splitter(characters, overlap))
    if listing:
        sources = built.sources()
        if as_json:
            typer.echo(json_line([asdict(s) for s in sources]))
        else:
            typer.echo("\n".join(map(str, sources)) or f"{into}: empty")
        return
    if folder is not None:
        reports = [
            built.ingest(
                folder, encoding=encoding, exclude=exclude or (), hidden=hidden, progress=console().shows_progress
            )
        ]
    else:
        reports = [built.remove(source) for source in forget or ()]
    for report in reports:
        typer.echo(json_line(asdict(report)) if as_json else f"{into}: {report}")


def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    index: IndexFolder = DEFAULT_INDEX,
    preset: Preset = None,
    bundle: Annotated[Bundle, typer.Option(help="The form of dragin and etc.")] = Bundle["paper"],
    model: Annotated[str, typer.Option(help="'embedded', a folder, a Hub id; or a server's model.")] = "embedded",
    base_url: BaseURL = None,
    retriever: Annotated[Retriever, typer.Option(help="How to search.")] = Retriever["hybrid"],
    inject: Annotated[Inject, typer.Option(help="Where the evidence goes: prompt, weights or both.")] = Inject[
        "prompt"
    ],
    store: Annotated[Path, typer.Option("--store", "-s", help="The adapters' folder.")] = DEFAULT_STORE,
    translator: Annotated[str | None, typer.Option(help="Its folder, or 'embedded', for --inject translated.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Passages a search; default: the preset's.")] = None,
    threshold: Annotated[float | None, typer.Option(help="The trigger's; default: the preset's.")] = None,
    max_retrievals: Annotated[int | None, typer.Option(help="Searches at most.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of the answer at most.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Seconds at most.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write an HTML view of what happened.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print answer, sources and trace as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Ask a question, retrieving while the model writes; or once, and answering from the passages' adapters.

    --json prints one line with the keys question, answer, short_answer, sources, trace (what happened, event by
    event), counts and seconds; with --inject parametric, combined or translated also inject, trained, translated and
    prompt_tokens.
    """
    quiet = quiet or console().quiet
    if is_blank(question):
        raise ConfigurationError('the question is empty; ask something: dynprag ask "Who built the bridge?"')
    if inject is not Inject["prompt"]:
        if preset not in (None, "single"):
            raise ConfigurationError(
                f"--inject {inject.value} retrieves once, before the answer; leave out --preset {preset}"
            )
        if base_url is not None:
            raise ConfigurationError(
                f"--inject {inject.value} changes the model's parameters, which are not here with --base-url; leave "
                "out one of the two"
            )
        _refuse_beside_injection(
            inject.value,
            {"threshold": threshold, "max-retrievals": max_retrievals, "max-seconds": max_seconds, "trace": trace},
        )
        _ask_injected(
            question,
            index,
            model,
            retriever.value,
            k,
            max_tokens,
            inject.value,
            store,
            translator,
            as_json=as_json,
            quiet=quiet,
        )
        return
    if translator is not None:
        raise ConfigurationError("--translator is for --inject translated")
    preset = preset or "flare"
    from langgraph_dynrag.graph import create_dynamic_rag
    from langgraph_dynrag.trace.trace import Trace

    settings = dict(get_preset(preset, bundle=bundle.value).settings)
    changes: dict[str, Any] = {} if k is None else {"k": k}
    if threshold is not None:
        changes["trigger"] = with_threshold(settings["trigger"], threshold)
    limits = {"retrievals": max_retrievals, "tokens": max_tokens, "seconds": max_seconds}
    given = {name: value for name, value in limits.items() if value is not None}
    changes["budgets"] = replace(settings["budgets"], **given)
    chat = chat_of(model, base_url)
    searcher = None
    if preset != "no_retrieval":
        from langgraph_dynrag.retrieval import LocalIndex

        searcher = LocalIndex(index).as_retriever(retriever.value)
    built = create_dynamic_rag(chat, searcher, preset=preset, bundle=bundle.value, **changes)
    result = _stream(built, question, show=not (as_json or quiet))
    told = Trace.from_state(result)
    if trace is not None:
        told.save_html(trace)
    if as_json:
        typer.echo(json_line(told.to_dict()))
    elif quiet:
        typer.echo(told.answer)
    else:
        _conclude(told, trace)


def _refuse_beside_injection(inject: str, options: dict[str, Any]) -> None:
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise ConfigurationError(f"--inject {inject} retrieves once and watches nothing; leave out {', '.join(given)}")


def _ask_injected(
    question: str,
    index: Path,
    model: str,
    retriever: Any,
    k: int | None,
    max_tokens: int | None,
    inject: Any,
    store: Path,
    translator: str | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    from langgraph_dynrag.injection.parametric import ask_injected
    from langgraph_dynrag.retrieval import LocalIndex

    found = ask_injected(
        question,
        LocalIndex(index).as_retriever(retriever, k=k or 3),
        model=model,
        store=store,
        inject=inject,
        translator=translator,
        max_tokens=48 if max_tokens is None else max_tokens,
        progress=console().shows_progress,
    )
    if as_json:
        typer.echo(json_line(found.to_dict()))
        return
    typer.echo(found.answer)
    if not quiet:
        for source in found.to_dict()["sources"]:
            typer.echo(f"  [{source['number']}] {name_of(source)}")
        made = f"{found.trained} adapters trained" if translator is None else f"{found.translated} passages read"
        others = f", {len(found.left_out)} other passages left out" if found.left_out else ""
        typer.secho(f"  {found.prompt_tokens} prompt tokens, {made}{others}", err=True, dim=True)


def graph(
    *,
    styles: Annotated[bool, typer.Option(help="With colours.")] = False,
) -> None:
    """Print the graph as a Mermaid diagram. Needs no network and no model."""
    from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
    from langgraph_dynrag.graph import create_dynamic_rag

    drawn = create_dynamic_rag(LocalChatModel(), preset="no_retrieval").get_graph()
    typer.echo(drawn.draw_mermaid(with_styles=styles).strip())


def _stream(built: Any, question: str, *, show: bool) -> dict[str, Any]:
    """Run the graph; accepted text goes to stdout as it comes, searches to stderr."""
    result: dict[str, Any] = {}
    for mode, part in built.stream({"question": question}, stream_mode=["messages", "custom", "values"]):
        if mode == "values":
            result = part
        elif show and mode == "messages":
            typer.echo(part[0].content, nl=False)
        elif show and mode == "custom" and part["type"] == "retrieval":
            titles = "; ".join(name_of(d) for d in part["documents"]) or part["error"] or "nothing"
            typer.secho(f"\n  [searched: {part['query']}]\n  [found: {titles}]", err=True, dim=True)
    if show:
        typer.echo()
    return result


def _conclude(told: Trace, trace: Path | None) -> None:
    if told.short_answer != told.answer:
        typer.secho(f"\n{told.short_answer}", bold=True)
    for source in told.sources:
        typer.echo(f"  [{source['number']}] {name_of(source)}")
    if trace is not None:
        typer.secho(f"  trace: {trace}", err=True, dim=True)
