"""`dynprag calibrate`."""

from __future__ import annotations

import random
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from langgraph_dynrag.commands.options import (
    DEFAULT_INDEX,
    BaseURL,
    BundleOption,
    IndexFolder,
    Model,
    SearchOption,
    chat_of,
)
from langgraph_dynrag.presets.methods import PRESETS, get_preset
from langgraph_dynrag.triggers.threshold import threshold_of
from rag_backbone.console import as_json as json_line
from rag_backbone.console import console
from rag_backbone.errors import ConfigurationError

Method = StrEnum("Method", [n for n in PRESETS if threshold_of(get_preset(n).settings["trigger"]) is not None])  # type: ignore[misc]


def calibrate(
    questions: Annotated[Path, typer.Argument(help="A file: .jsonl or .json (question, answers), or one a line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The preset file to write (.json).")],
    rate: Annotated[float | None, typer.Option(help="Desired share of sentences (or questions) that search.")] = None,
    per: Annotated[Literal["sentence", "question"], typer.Option(help="What the rate is a share of.")] = "sentence",
    cost: Annotated[
        float | None, typer.Option(help="Instead of a rate: the best F1 with at most this many searches per question.")
    ] = None,
    trigger: Annotated[
        Literal["learned"] | None,
        typer.Option(help="Train a trigger instead of the method's own (questions need answers)."),
    ] = None,
    learner: Annotated[
        Literal["logistic", "trees"], typer.Option(help="What to train with --trigger learned.")
    ] = "logistic",
    probe: Annotated[
        bool, typer.Option("--probe", help="With --trigger learned: also weigh hidden states (in-process models).")
    ] = False,
    missed: Annotated[
        float | None,
        typer.Option(help="With --trigger learned, instead of a rate: share of needed retrievals that may be missed."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Confidence of the bounds.")] = 0.9,
    given_up: Annotated[
        float | None,
        typer.Option(help="With --trigger learned: share of the right sentences whose answer may be given up."),
    ] = None,
    preset: Annotated[Method, typer.Option(help="The method.")] = Method["flare"],
    bundle: BundleOption = "paper",
    model: Model = "embedded",
    base_url: BaseURL = None,
    index: IndexFolder = DEFAULT_INDEX,
    retriever: SearchOption = "hybrid",
    limit: Annotated[int, typer.Option(min=2, help="Maximum number of questions; a sample if the file has more.")] = 40,
    points: Annotated[int, typer.Option(min=2, help="Thresholds to run the method at, with --cost.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the sample and the bootstrap.")] = 0,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Find a method's threshold for a model, and save it as a preset file."""
    from langgraph_dynrag.calibration.calibrating import calibrate as find
    from langgraph_dynrag.calibration.questions import read_questions
    from langgraph_dynrag.presets.file import refuse_unless_writable

    if out.suffix != ".json":  # before anything is computed
        raise ConfigurationError(f"--out is {out}; the name of a preset file ends in .json")
    asked = read_questions(questions)
    if len(asked) > limit:
        asked = random.Random(seed).sample(asked, limit)  # noqa: S311 - a draw, no secret
    method = get_preset(preset.value, bundle=bundle)
    refuse_unless_writable(method.settings["trigger"])
    searcher: Any = None
    if cost is not None or trigger or method.settings.get("initial_retrieval"):
        from langgraph_dynrag.retrieval import LocalIndex

        searcher = LocalIndex(index).as_retriever(retriever)
    found = find(
        chat_of(model, base_url),
        searcher,
        questions=asked,
        rate=rate,
        per=per,
        cost=cost,
        missed=missed,
        confidence=confidence,
        given_up=given_up,
        trigger=trigger,
        learner=learner,
        probe=probe,
        preset=method,
        points=points,
        bootstrap_seed=seed,
        progress=console().shows_progress,
    )
    # Printed first, so that a full disk does not lose what took so long to find.
    typer.echo(json_line(found.to_dict()) if as_json else str(found))
    found.save(out)
    if not (as_json or console().quiet):
        typer.secho(f"  saved: {out}   (dynprag ask ... --preset {out})", err=True, dim=True)
