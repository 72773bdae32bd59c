"""`dynprag calibrate`."""

from __future__ import annotations

import random
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from langgraph_dynrag.cli_options import BaseURL, chat_of
from langgraph_dynrag.presets.methods import PRESETS, get_preset
from langgraph_dynrag.triggers.threshold import threshold_of
from rag_backbone.console import as_json as json_line
from rag_backbone.console import console
from rag_backbone.errors import ConfigurationError

_INDEX = Path(".dynprag/index")
Per = StrEnum("Per", ["sentence", "question"])
Method = StrEnum("Method", [n for n in PRESETS if threshold_of(get_preset(n).settings["trigger"]) is not None])  # type: ignore[misc]
Bundle = StrEnum("Bundle", ["paper", "reference"])
Retriever = StrEnum("Retriever", ["hybrid", "dense", "bm25"])


def calibrate(
    questions: Annotated[Path, typer.Argument(help="A file: .jsonl or .json (question, answers), or one a line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The preset file to write (.json).")],
    rate: Annotated[float | None, typer.Option(help="Wanted share of sentences (or questions) that search.")] = None,
    per: Annotated[Per, typer.Option(help="Of what the rate is a share.")] = Per["sentence"],
    cost: Annotated[
        float | None, typer.Option(help="Instead of a rate: the best F1 with so many searches a question.")
    ] = None,
    preset: Annotated[Method, typer.Option(help="The method.")] = Method["flare"],
    bundle: Annotated[Bundle, typer.Option(help="The form of dragin and etc.")] = Bundle["paper"],
    model: Annotated[str, typer.Option(help="'embedded', a folder, a Hub id; or a server's model.")] = "embedded",
    base_url: BaseURL = None,
    index: Annotated[Path, typer.Option("--index", "-i", help="The index's folder.")] = _INDEX,
    retriever: Annotated[Retriever, typer.Option(help="How to search.")] = Retriever["hybrid"],
    limit: Annotated[int, typer.Option(min=2, help="Questions at most; drawn if the file has more.")] = 40,
    points: Annotated[int, typer.Option(min=2, help="Thresholds to run the method at, with --cost.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the draw and the bootstrap.")] = 0,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Find a method's threshold for a model, and save it as a preset file."""
    from langgraph_dynrag.calibration.calibrating import calibrate as find
    from langgraph_dynrag.calibration.questions import read_questions
    from langgraph_dynrag.presets.file import refuse_unless_writable

    if out.suffix != ".json":  # before anything is computed
        raise ConfigurationError(f"a preset file's name ends in .json, by which it is told apart; got {out}")
    asked = read_questions(questions)
    if len(asked) > limit:
        asked = random.Random(seed).sample(asked, limit)  # noqa: S311 - a draw, no secret
    # Typer has checked them against the enumerations.
    form: Any = bundle.value
    searching: Any = retriever.value
    share: Any = per.value
    settings = get_preset(preset.value, bundle=form).settings
    refuse_unless_writable(settings["trigger"])
    searcher: Any = None
    if cost is not None or settings.get("initial_retrieval"):
        from langgraph_dynrag.retrieval import LocalIndex

        searcher = LocalIndex(index).as_retriever(searching)
    found = find(
        chat_of(model, base_url),
        searcher,
        questions=asked,
        rate=rate,
        per=share,
        cost=cost,
        preset=preset.value,
        bundle=form,
        points=points,
        seed=seed,
        progress=console().shows_progress,
    )
    # What took so long to find is not lost with a disk that is full.
    typer.echo(json_line(found.to_dict()) if as_json else str(found))
    found.save(out)
    if not (as_json or console().quiet):
        typer.secho(f"  saved: {out}   (dynprag ask ... --preset {out})", err=True, dim=True)
