"""`dynprag train-translator`."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rag_backbone.console import as_json as json_line
from rag_backbone.console import console

NAMES = ("own", "other", "mean", "base", "f1")


def train_translator(
    corpus: Annotated[Path, typer.Argument(help="JSON lines with a text, and perhaps title and questions, in each.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder; the state is in OUT.training.")],
    model: Annotated[str, typer.Option(help="'embedded', a folder or a Hub id.")] = "embedded",
    kind: Annotated[str | None, typer.Option(help="'shared', the default, or 'dyprag'.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Of the adapters; by default distill, prag for dyprag.")] = None,
    start: Annotated[Path | None, typer.Option(help="A checkpoint to begin with, of the same model.")] = None,
    steps: Annotated[int, typer.Option(help="Steps in all.")] = 2000,
    documents: Annotated[int, typer.Option(help="Passages of a step.")] = 8,
    questions: Annotated[int, typer.Option(help="Questions about each of them.")] = 8,
    phrases: Annotated[int, typer.Option(help="Questions by rule that each of them has to draw from.")] = 64,
    unrelated: Annotated[int, typer.Option(help="Questions of other subjects beside them.")] = 1,
    learning_rate: Annotated[float | None, typer.Option(help="The highest; by default 1e-3, 1e-5 to imitate.")] = None,
    imitate: Annotated[
        Path | None, typer.Option(help="A store of trained adapters: learn to make these, as DyPRAG does.")
    ] = None,
    validation: Annotated[int, typer.Option(help="Passages set apart to judge by.")] = 64,
    validate_every: Annotated[int, typer.Option(help="Steps between two judgements.")] = 200,
    patience: Annotated[int, typer.Option(help="Judgements that may be no better; 0: any number.")] = 0,
    states: Annotated[
        Path | None,
        typer.Option(help="Keep the base model's states there (may be shared): a step takes half as long."),
    ] = None,
    states_gb: Annotated[float, typer.Option(help="The most that is kept there.")] = 8.0,
    device: Annotated[str, typer.Option(help="Such as 'cpu' or 'cuda'.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of the base model; the translator itself is float32.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of weights, order and questions.")] = 0,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after so long; the same call goes on.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a translator. One that was stopped goes on where its state was kept last."""
    from llamaindex_prag.adapters.recipe import get_recipe
    from llamaindex_prag.translator.config import TranslatorConfig
    from llamaindex_prag.translator.training.corpus import read_lessons, split
    from llamaindex_prag.translator.training.plan import DYPRAG, TrainingPlan

    if start is not None and (kind or recipe):
        raise typer.BadParameter("--start has a kind and a recipe of its own; leave --kind and --recipe out")
    if start is not None and start.resolve() == out.resolve():
        raise typer.BadParameter(f"--start and --out are both {out}, which training writes over; name another --out")
    plan = (TrainingPlan.of(_kind(kind, start)) if imitate is None else DYPRAG).changed(
        steps=steps,
        documents=documents,
        questions=questions,
        phrases=phrases,
        validate_every=validate_every,
        patience=patience,
        seed=seed,
        **({"unrelated": unrelated} if imitate is None else {}),
        **({} if learning_rate is None else {"learning_rate": learning_rate}),
    )
    form = {"recipe": get_recipe(recipe)} if recipe else {}
    lessons = split(read_lessons(corpus), validation=validation, seed=seed)

    from llamaindex_prag.store.lmdb_store import LMDBStore
    from llamaindex_prag.translator.training.state_cache import KeptStates
    from llamaindex_prag.translator.training.trainer import TranslatorTrainer
    from llamaindex_prag.translator.translator import Translator
    from rag_backbone.loading.causal_lm import CausalLM

    lm = CausalLM.from_pretrained(model, device=device, dtype=dtype)  # type: ignore[arg-type]
    if start is None:
        translator = Translator(lm, TranslatorConfig.of(lm, kind or "shared", seed=seed, **form))  # type: ignore[arg-type]
    else:
        translator = Translator.load(start, lm)
    with contextlib.ExitStack() as stack:
        store = None
        if imitate is not None:
            store = stack.enter_context(LMDBStore(imitate, model=lm.fingerprint, readonly=True))
        kept = None
        if states is not None:
            kept = stack.enter_context(KeptStates.for_model(states, lm, gigabytes=states_gb))
        trainer = TranslatorTrainer(translator, lessons, out, plan, adapters=store, kept=kept)
        end = None if max_minutes is None else time.perf_counter() + 60 * max_minutes
        run = trainer.train(over=lambda: end is not None and time.perf_counter() > end, show=console().shows_progress)
    told: dict[str, Any] = {
        "folder": str(out),
        "steps": run.steps,
        "ended": run.ended,
        "parameters": translator.parameters,
        "bytes_per_document": translator.config.representation_bytes,
        "history": run.history,
    }
    if as_json:
        typer.echo(json_line(told))
        return
    for entry in run.history:
        losses = ", ".join(f"{name} {entry[name]:.3f}" for name in NAMES if entry[name] is not None)
        typer.echo(f"step {entry['step']}: {losses}")
    typer.echo(f"{out}: {run.ended or f'stopped at step {run.steps}; the same call goes on'}")


def _kind(kind: str | None, start: Path | None) -> str:
    from llamaindex_prag.translator.checkpoint import read

    return kind or ("shared" if start is None else read(start)[0].kind)
