"""The command `dynprag train-translator`."""

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
    corpus: Annotated[Path, typer.Argument(help="JSON lines file: a text, optionally title and questions, per line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint folder; training state is in OUT.training.")],
    model: Annotated[str, typer.Option(help="'embedded', a folder or a Hub id.")] = "embedded",
    kind: Annotated[str | None, typer.Option(help="'shared' (default) or 'dyprag'.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Adapter recipe; default: distill, or prag for dyprag.")] = None,
    start: Annotated[Path | None, typer.Option(help="Checkpoint of the same model to start from.")] = None,
    steps: Annotated[int, typer.Option(help="Total number of steps.")] = 2000,
    documents: Annotated[int, typer.Option(help="Passages per step.")] = 8,
    questions: Annotated[int, typer.Option(help="Questions per passage and step.")] = 8,
    phrases: Annotated[int, typer.Option(help="Rule-based questions per passage to sample from.")] = 64,
    unrelated: Annotated[int, typer.Option(help="Additional questions on unrelated subjects.")] = 1,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate; default: 1e-3, or 1e-5 to imitate.")] = None,
    imitate: Annotated[
        Path | None, typer.Option(help="Store of trained adapters; learn to reproduce them, as DyPRAG does.")
    ] = None,
    validation: Annotated[int, typer.Option(help="Number of passages held out for validation.")] = 64,
    validate_every: Annotated[int, typer.Option(help="Steps between two validations.")] = 200,
    patience: Annotated[int, typer.Option(help="Stop after this many validations without progress; 0: never.")] = 0,
    states: Annotated[
        Path | None,
        typer.Option(help="Cache the base model's states here (can be shared); halves the time of a step."),
    ] = None,
    states_gb: Annotated[float, typer.Option(help="Maximum size of that cache in GiB.")] = 8.0,
    device: Annotated[str, typer.Option(help="Such as 'cpu' or 'cuda'.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Data type of the base model; the translator is float32.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of weights, order and questions.")] = 0,
    needle_steps: Annotated[int, typer.Option(help="Steps on needles before the health check.")] = 1000,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this time; rerun to resume.")] = None,
    *,
    health_check: Annotated[
        bool,
        typer.Option(help="Train on the corpus only if the translator learns to carry the facts of unseen needles."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a translator, or resume a stopped training from its last saved state.

    A new one is first trained on needles ("The code of Marvane is 4711."), in OUT.needles: unless it then answers the
    questions about unseen needles, it is not trained on the corpus, from which it would only learn the form of answers.
    """
    from llamaindex_prag.adapters.recipe import get_recipe
    from llamaindex_prag.translator.config import TranslatorConfig
    from llamaindex_prag.translator.training.corpus import read_lessons, split
    from llamaindex_prag.translator.training.health import HealthCheck
    from llamaindex_prag.translator.training.plan import DYPRAG, TrainingPlan

    if start is not None and (kind or recipe):
        raise typer.BadParameter("--start already has a kind and a recipe; leave --kind and --recipe out")
    if start is not None and start.resolve() == out.resolve():
        raise typer.BadParameter(f"--start and --out are both {out}, which training overwrites; name another --out")
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
    check = HealthCheck(steps=needle_steps) if health_check else None
    form = {"recipe": get_recipe(recipe)} if recipe else {}
    lessons = split(read_lessons(corpus), validation=validation, seed=seed)

    from llamaindex_prag.store.opening import open_store
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
        store = None if imitate is None else open_store(imitate, model=lm.fingerprint, readonly=True)
        if store is not None:
            stack.callback(store.close)
        kept = None
        if states is not None:
            kept = stack.enter_context(KeptStates.for_model(states, lm, gigabytes=states_gb))
        trainer = TranslatorTrainer(translator, lessons, out, plan, adapters=store, kept=kept, health_check=check)
        end = None if max_minutes is None else time.perf_counter() + 60 * max_minutes
        run = trainer.train(over=lambda: end is not None and time.perf_counter() > end, show=console().shows_progress)
    told: dict[str, Any] = {
        "folder": str(out),
        "steps": run.steps,
        "ended": run.ended,
        "parameters": translator.parameters,
        "bytes_per_document": translator.config.representation_bytes,
        "health": run.health,
        "history": run.history,
    }
    if as_json:
        typer.echo(json_line(told))
        return
    if run.health is not None:
        typer.echo(run.health["why"])
    for entry in run.history:
        losses = ", ".join(f"{name} {entry[name]:.3f}" for name in NAMES if entry[name] is not None)
        typer.echo(f"step {entry['step']}: {losses}")
    typer.echo(f"{out}: {run.ended or f'stopped at step {run.steps}; run the same command to resume'}")


def _kind(kind: str | None, start: Path | None) -> str:
    from llamaindex_prag.translator.checkpoint import read

    return kind or ("shared" if start is None else read(start)[0].kind)
