"""`dynprag parametrize`, `dynprag store` and, from its own module, `dynprag train-translator`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamaindex_prag.reading import read_passages
from llamaindex_prag.recipe import RECIPES, get_recipe
from llamaindex_prag.translator.cli import train_translator
from rag_backbone.documents import Findings, read_text_file, told
from rag_backbone.errors import AdapterError

if TYPE_CHECKING:
    from llamaindex_prag.store.lmdb_store import LMDBStore

DEFAULT_STORE = Path(".dynprag/adapters")

StoreFolder = Annotated[Path, typer.Option("--store", "-s", help="The store's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add this package's subcommands."""
    app.command("parametrize")(parametrize)
    app.command("train-translator")(train_translator)
    store = typer.Typer(no_args_is_help=True, help="Look after a store of adapters.")
    for command in (stats, verify, gc, remove):
        store.command()(command)
    store.command("export")(export)
    store.command("import")(import_folder)
    app.add_typer(store, name="store")


def parametrize(
    source: Annotated[Path, typer.Argument(help="A folder, or a file, of documents.")],
    store: StoreFolder = DEFAULT_STORE,
    model: Annotated[str, typer.Option(help="'embedded', a folder or a Hub id.")] = "embedded",
    recipe: Annotated[str, typer.Option(help=f"How: {', '.join(RECIPES)}.")] = "distill",
    questions: Annotated[int | None, typer.Option(help="Asked about a passage; default: the recipe's.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of files that are not UTF-8, such as cp1252.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Glob pattern to leave out; may be repeated.")] = None,
    *,
    hidden: Annotated[bool, typer.Option("--hidden", help="Read hidden files and tool folders as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the adapters of documents. What the store holds costs nothing; a job that was stopped goes on."""
    findings = Findings()
    passages = read_passages(source, encoding=encoding, exclude=exclude or (), hidden=hidden, findings=findings)
    chosen = get_recipe(recipe, **({} if questions is None else {"questions": questions}))

    from llamaindex_prag.parametric import ParametricModel
    from llamaindex_prag.parametrize import Parametrizer
    from llamaindex_prag.store.lmdb_store import LMDBStore
    from rag_backbone.causal_lm import CausalLM

    lm = CausalLM.from_pretrained(model)
    with LMDBStore(store, model=lm.fingerprint) as opened:
        made = Parametrizer(ParametricModel(lm, opened, recipe=chosen))
        report = made.parametrize(passages, complete=True, progress=sys.stderr.isatty())
    if as_json:
        files = {"skipped_files": findings.skipped, "file_notes": findings.notes}
        typer.echo(json.dumps({**asdict(report), **files}))
        return
    typer.echo(f"{store}: {report}")
    if files_told := told(findings.skipped, findings.notes):
        typer.echo(files_told)
    if report.notes:
        typer.secho(f"{len(report.notes)} passages did not go as planned; see their records", err=True, dim=True)


def stats(store: StoreFolder = DEFAULT_STORE, *, as_json: AsJson = False) -> None:
    """What the store holds."""
    with _existing(store) as opened:
        _show(asdict(opened.stats()), as_json=as_json)


def verify(store: StoreFolder = DEFAULT_STORE, *, as_json: AsJson = False) -> None:
    """Check every adapter; exit code 1 if one is damaged."""
    with _existing(store) as opened:
        report = opened.verify(progress=sys.stderr.isatty())
    damaged = {key.text: reason for key, reason in report.damaged}
    _show({"checked": report.checked, "damaged": damaged}, as_json=as_json)
    if not report.ok:
        raise typer.Exit(1)


def gc(store: StoreFolder = DEFAULT_STORE, *, as_json: AsJson = False) -> None:
    """Remove what no document uses any more, and make the file smaller."""
    with _existing(store) as opened:
        _show(asdict(opened.gc()), as_json=as_json)


def remove(
    document: Annotated[str, typer.Argument(help="A document: its file's path, or the end of it, or a text's hash.")],
    store: StoreFolder = DEFAULT_STORE,
    *,
    as_json: AsJson = False,
) -> None:
    """Remove a document's adapters for good."""
    with _existing(store) as opened:
        if named := _documents_called(opened, document):
            gone = [text for one in named for text in opened.remove_document(one)]
        elif _is_hash(document) and opened.remove(document):
            gone = [document]
        else:
            raise AdapterError(f"the store {store} has neither a document nor a text {document!r}; see `store stats`")
        _show({"removed": gone}, as_json=as_json)


def _documents_called(store: LMDBStore, name: str) -> list[str]:
    """The document with this id, or the only one whose id ends so.

    Raises:
        AdapterError: If there are several.
    """
    for exact in (name, Path(name).resolve().as_posix()):
        if store.texts(exact):
            return [exact]
    known = {owner for key in store.keys() for owner in store.owners(key.text)}  # noqa: SIM118 - not a mapping
    found = sorted(owner for owner in known if owner.endswith(f"/{name}"))
    if len(found) > 1:
        raise AdapterError(f"{len(found)} documents are called {name!r}: {', '.join(found[:5])}; name more of the path")
    return found


def export(
    text: Annotated[str, typer.Argument(help="The text's hash; see `dynprag store stats --json`.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    store: StoreFolder = DEFAULT_STORE,
    base_model: Annotated[str, typer.Option(help="The base model's name, for PEFT.")] = "",
) -> None:
    """Write an adapter as a PEFT folder."""
    from llamaindex_prag.store.peft_folder import export_peft

    with _existing(store) as opened:
        found = [key for key in opened.keys() if key.text.startswith(text)]  # noqa: SIM118 - not a mapping
        if len(found) != 1:
            raise AdapterError(
                f"{len(found)} adapters have a text hash that begins with {text!r}; exactly one is needed"
            )
        adapter = opened.get(found[0])
        assert adapter is not None
        typer.echo(export_peft(adapter, folder, base_model_name=base_model))


def import_folder(
    folder: Annotated[Path, typer.Argument(help="A PEFT folder.")],
    text: Annotated[Path, typer.Argument(help="A file with the passage that the adapter stands for.")],
    store: StoreFolder = DEFAULT_STORE,
    model: Annotated[str, typer.Option(help="'embedded', a folder or a Hub id.")] = "embedded",
    recipe: Annotated[str, typer.Option(help=f"Under which it is kept: {', '.join(RECIPES)}.")] = "distill",
) -> None:
    """Keep a PEFT adapter as that of a passage. Its rank and layers must be the recipe's."""
    passage = read_text_file(text)

    from llamaindex_prag.parametric import ParametricModel
    from llamaindex_prag.store.lmdb_store import LMDBStore
    from llamaindex_prag.store.peft_folder import import_peft
    from rag_backbone.causal_lm import CausalLM

    lm = CausalLM.from_pretrained(model)
    with LMDBStore(store, model=lm.fingerprint) as opened:
        made = ParametricModel(lm, opened, recipe=recipe)
        adapter = import_peft(folder, made.layout)
        if adapter.layout != made.layout:
            raise AdapterError(f"{folder} has {adapter.layout!r}; the recipe {recipe!r} needs {made.layout!r}")
        opened.put(made.key(passage), adapter, {"imported": folder.name}, owners=[text.name])
    typer.echo(f"{store}: {text.name}")


def _existing(folder: Path) -> LMDBStore:
    from llamaindex_prag.store.lmdb_store import LMDBStore

    return LMDBStore(folder, model=None)


def _is_hash(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _show(data: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(data))
    else:
        typer.echo("\n".join(f"{name}: {value}" for name, value in data.items()))
