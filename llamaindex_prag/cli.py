"""Commands `dynprag parametrize` and `dynprag store`; registers `dynprag train-translator` from its own module."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamaindex_prag.adapters.recipe import RECIPES, get_recipe
from llamaindex_prag.adapters.recipe_options import changes_of
from llamaindex_prag.passage_files import read_passages
from llamaindex_prag.translator.cli import train_translator
from rag_backbone.console import as_json as json_line
from rag_backbone.console import console, given, given_path, given_store, stdout_to_stderr
from rag_backbone.documents import Findings, read_text_file, told
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.ray_cluster import require_ray
from rag_backbone.text.unicode import clean_name

if TYPE_CHECKING:
    from llamaindex_prag.store.lmdb_store import LMDBStore
    from llamaindex_prag.store.object.store import ObjectStore

DEFAULT_STORE = ".dynprag/adapters"
_SHOWN = 16
"""Number of hash digits in a listing; `export` and `remove` accept that many."""
_FEWEST = 6
"""Minimum number of hash digits for removing a text."""

StoreFolder = Annotated[
    str,
    typer.Option(
        "--store",
        "-s",
        help="The store's folder, or a URL such as s3://bucket/adapters.",
        parser=given_store,
        metavar="FOLDER|URL",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add this package's subcommands."""
    app.command("parametrize")(parametrize)
    app.command("train-translator")(train_translator)
    store = typer.Typer(no_args_is_help=True, help="Manage a store of adapters.")
    store.command("list")(list_adapters)
    for command in (stats, verify, gc, remove):
        store.command()(command)
    store.command("export")(export)
    store.command("import")(import_folder)
    app.add_typer(store, name="store")


def parametrize(
    source: Annotated[
        Path,
        typer.Argument(help="A folder, or a file, of documents.", parser=given_path, metavar="FOLDER|FILE"),
    ],
    store: StoreFolder = DEFAULT_STORE,
    model: Annotated[str, typer.Option(help="'embedded', a folder or a Hub id.")] = "embedded",
    recipe: Annotated[str, typer.Option(help=f"How: {', '.join(RECIPES)}.")] = "distill",
    questions: Annotated[int | None, typer.Option(help="Questions per passage; default: the recipe's.")] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(help="What generates them: 'model' or 'rules'; default: the model, or rules if it is too small."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another value of the recipe, such as rank=2 or acts_from=answer; may be repeated.",
        ),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of non-UTF-8 files, such as cp1252.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Glob pattern to leave out; may be repeated.")] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Train on a Ray cluster: HOST:PORT, 'auto' on one of its machines, or 'local' for this machine.",
        ),
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(help="Most workers; default: as many as there is room for.")
    ] = None,
    ray_cpus: Annotated[float, typer.Option(help="CPUs, and threads, of a worker.")] = 1,
    ray_gpus: Annotated[float, typer.Option(help="GPUs of a worker; a fraction shares one.")] = 0,
    ray_model: Annotated[str | None, typer.Option(help="The model's folder on the nodes; default: --model.")] = None,
    *,
    hidden: Annotated[bool, typer.Option("--hidden", help="Read hidden files and tool folders as well.")] = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only print how long it would take.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the adapters of documents. Adapters that the store holds cost nothing; a job that was stopped continues.

    With --ray, the nodes of a cluster train, and this process writes the store.

    Adapters of two recipes are never mixed, so `dynprag ask` needs the same --recipe and --change.
    """
    changes, options = changes_of(change or ()), {"questions": questions, "augmentation": augmentation}
    options = {name: value for name, value in options.items() if value is not None}
    if twice := sorted(set(changes) & set(options)):
        raise ConfigurationError(f"--change {twice[0]}=... and --{twice[0]} say the same thing; give one of them")
    chosen = get_recipe(recipe).changed(**changes, **options)
    cluster: dict[str, Any] = {
        "workers": ray_workers,
        "num_cpus": ray_cpus,
        "num_gpus": ray_gpus,
        "worker_model": ray_model,
    }
    if ray is None and cluster != {"workers": None, "num_cpus": 1, "num_gpus": 0, "worker_model": None}:
        raise ConfigurationError("--ray-workers, --ray-cpus, --ray-gpus and --ray-model need --ray ADDRESS")
    if ray is not None:
        require_ray()
    findings = Findings()
    passages = read_passages(source, encoding=encoding, exclude=exclude or (), hidden=hidden, findings=findings)

    from llamaindex_prag.cluster.ray_parametrizer import RayParametrizer
    from llamaindex_prag.parametric_model import ParametricModel
    from llamaindex_prag.parametrize import Parametrizer
    from llamaindex_prag.store.opening import open_store
    from rag_backbone.loading.causal_lm import CausalLM

    lm = CausalLM.from_pretrained(model, device="auto" if ray is None else "cpu")  # there, it only counts tokens
    report = None
    with ExitStack() as stack:
        opened = open_store(store, model=lm.fingerprint)
        stack.callback(opened.close)
        adapters = ParametricModel(lm, opened, recipe=chosen)
        made = Parametrizer(adapters)
        if ray is not None:
            stack.enter_context(stdout_to_stderr())  # Ray tells of its nodes on stdout
            made = stack.enter_context(RayParametrizer(adapters, ray, **cluster))
        expected = made.estimate(passages)
        if not estimate:
            if expected.documents and not console().quiet:
                typer.secho(str(expected), err=True, dim=True)
            report = made.parametrize(passages, complete=True, progress=console().shows_progress)
    if report is None:
        typer.echo(json_line(expected.to_dict()) if as_json else f"{store}: {expected}")
        return
    if as_json:
        files = {"skipped_files": findings.skipped, "file_notes": findings.notes}
        typer.echo(json_line({**asdict(report), **files}))
        return
    typer.echo(f"{store}: {report}")
    if files_told := told(findings.skipped, findings.notes):
        typer.echo(files_told)
    if report.notes:
        typer.secho(f"{len(report.notes)} passages did not go as planned; see their records", err=True, dim=True)


def list_adapters(store: StoreFolder = DEFAULT_STORE, *, as_json: AsJson = False) -> None:
    """List the adapters: text hash, recipe, size in bytes, creation time, and the documents that use the text."""
    with _existing(store) as opened:
        found = opened.adapters()
    if as_json:
        typer.echo(json_line([asdict(adapter) for adapter in found]))
        return
    for adapter in found:
        documents = ", ".join(map(clean_name, adapter.documents)) or "-"
        made = adapter.created or "-"
        typer.echo(f"{adapter.text[:_SHOWN]}  {adapter.recipe:<8} {adapter.bytes:>9}  {made:<25}  {documents}")


def stats(store: StoreFolder = DEFAULT_STORE, *, as_json: AsJson = False) -> None:
    """Print what the store holds."""
    with _existing(store) as opened:
        _show(asdict(opened.stats()), as_json=as_json)


def verify(store: StoreFolder = DEFAULT_STORE, *, as_json: AsJson = False) -> None:
    """Check every adapter; the exit code is 1 if one is damaged."""
    with _existing(store) as opened:
        report = opened.verify(progress=console().shows_progress)
    damaged = {key.text: reason for key, reason in report.damaged}
    _show({"checked": report.checked, "damaged": damaged}, as_json=as_json)
    if not report.ok:
        raise typer.Exit(1)


def gc(
    store: StoreFolder = DEFAULT_STORE,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also remove adapters of documents that the index in this folder no longer has: a folder that "
            "LlamaIndex persisted, or one of `dynprag index`. May be repeated.",
            parser=given_path,
            metavar="INDEX",
        ),
    ] = None,
    *,
    only: Annotated[
        bool,
        typer.Option("--only", help="With --against: these are all indexes; remove what is in none of them."),
    ] = False,
    allow_empty: Annotated[
        bool,
        typer.Option("--allow-empty", help="With --against: even if an index has no document of this store."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove adapters that no document uses any more, and shrink the file."""
    if not against:
        if given_alone := [name for name, on in (("--only", only), ("--allow-empty", allow_empty)) if on]:
            raise ConfigurationError(f"{' and '.join(given_alone)} can only be used with --against INDEX")
        with _existing(store, readonly=dry_run) as opened:
            _show(asdict(opened.gc(dry_run=dry_run)), as_json=as_json)
        return
    from llamaindex_prag.index_folders import folder_contents
    from llamaindex_prag.store.reconcile import reconcile

    indexes = [folder_contents(folder) for folder in against]
    with _existing(store, readonly=dry_run) as opened:
        found = reconcile(opened, indexes, only=only, allow_empty=allow_empty, dry_run=dry_run)
        collected = opened.gc(dry_run=dry_run)
    if as_json:
        typer.echo(json_line({**asdict(found), "gc": asdict(collected)}))
        return
    verb = "would lose" if dry_run else "lost"
    for document, texts in found.documents.items():
        typer.echo(f"{clean_name(document)} {verb} {', '.join(text[:_SHOWN] for text in texts)}")
    for document, why in found.kept.items():
        typer.echo(f"{clean_name(document)} stays: {why}")
    if found.kept:
        typer.echo("if these are all indexes that use this store, add --only to remove these documents as well")
    typer.echo(str(found))
    _show(asdict(collected), as_json=False)


def remove(
    document: Annotated[
        str,
        typer.Argument(
            help="A document, by its file's path or the end of it; or a text, by its hash or the beginning of it. "
            "See `dynprag store list`.",
            callback=given,
        ),
    ],
    store: StoreFolder = DEFAULT_STORE,
    *,
    as_json: AsJson = False,
) -> None:
    """Remove a document's adapters permanently. A text that another document also has is kept."""
    with _existing(store) as opened:
        if named := _documents_called(opened, document):
            texts = dict.fromkeys(text for one in named for text in opened.texts(one))
            gone = [text for one in named for text in opened.remove_document(one)]
            kept = {text: opened.owners(text) for text in texts if text not in gone}
        elif text := _text_called(opened, document):
            opened.remove(text)
            gone, kept = [text], {}
        else:
            raise AdapterError(f"the store {store} has neither a document nor a text {document!r}; see `store list`")
        if as_json:
            typer.echo(json_line({"removed": gone} | ({"kept": kept} if kept else {})))
            return
        typer.echo(f"removed: {', '.join(gone) or 'no adapter'}")
        for text, others in kept.items():
            typer.echo(f"kept: {text}, because {', '.join(map(clean_name, others))} has it too")


def _documents_called(store: LMDBStore | ObjectStore, name: str) -> list[str]:
    """Return the document with this id, or else the only one whose id ends with `/` and this name.

    Raises:
        AdapterError: If several ids end like that.
    """
    for exact in (name, Path(name).resolve().as_posix()):
        if store.texts(exact):
            return [exact]
    known = {owner for adapter in store.adapters() for owner in adapter.documents}
    found = sorted(owner for owner in known if owner.endswith(f"/{name}"))
    if len(found) > 1:
        raise AdapterError(f"{len(found)} documents are called {name!r}: {', '.join(found[:5])}; give more of the path")
    return found


def _text_called(store: LMDBStore | ObjectStore, beginning: str) -> str | None:
    """Return the only text whose hash begins with these digits, or None.

    Raises:
        AdapterError: If several hashes do.
    """
    if len(beginning) < _FEWEST:
        return None
    found = sorted({key.text for key in store.keys() if key.text.startswith(beginning.lower())})  # noqa: SIM118
    if len(found) > 1:
        raise AdapterError(f"the hashes of {len(found)} texts begin with {beginning!r}; give more digits")
    return found[0] if found else None


def export(
    text: Annotated[
        str, typer.Argument(help="The text's hash, or the beginning of it; see `dynprag store list`.", callback=given)
    ],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    store: StoreFolder = DEFAULT_STORE,
    base_model: Annotated[str, typer.Option(help="The base model's name, for PEFT.")] = "",
) -> None:
    """Write an adapter as a PEFT folder."""
    from llamaindex_prag.adapters.recipe import Recipe
    from llamaindex_prag.store.peft_folder import export_peft

    with _existing(store) as opened:
        found = [key for key in opened.keys() if key.text.startswith(text.lower())]  # noqa: SIM118 - not a mapping
        if len(found) != 1:
            raise AdapterError(
                f"{len(found)} adapters have a text hash that begins with {text!r}; exactly one is needed, "
                "see `dynprag store list`"
            )
        adapter = opened.get(found[0])
        assert adapter is not None
        if made_by := (opened.record(found[0]) or {}).get("recipe"):
            Recipe.from_dict(made_by).check_plain("a PEFT folder")
        typer.echo(export_peft(adapter, folder, base_model_name=base_model))


def import_folder(
    folder: Annotated[Path, typer.Argument(help="A PEFT folder.")],
    text: Annotated[Path, typer.Argument(help="A file with the passage that the adapter was trained on.")],
    store: StoreFolder = DEFAULT_STORE,
    model: Annotated[str, typer.Option(help="'embedded', a folder or a Hub id.")] = "embedded",
    recipe: Annotated[str, typer.Option(help=f"The recipe that it is stored under: {', '.join(RECIPES)}.")] = "distill",
) -> None:
    """Store a PEFT adapter as the adapter of a passage. Its rank and layers must be those of the recipe."""
    passage = read_text_file(text)

    from llamaindex_prag.parametric_model import ParametricModel
    from llamaindex_prag.store.opening import open_store
    from llamaindex_prag.store.peft_folder import import_peft
    from rag_backbone.loading.causal_lm import CausalLM

    lm = CausalLM.from_pretrained(model)
    with open_store(store, model=lm.fingerprint) as opened:
        made = ParametricModel(lm, opened, recipe=recipe)
        adapter = import_peft(folder, made.layout)
        if adapter.layout != made.layout:
            raise AdapterError(f"{folder} has {adapter.layout!r}; the recipe {recipe!r} needs {made.layout!r}")
        record = {
            "imported": folder.name,
            "recipe": made.recipe.to_dict(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        opened.put(made.key(passage), adapter, record, owners=[text.name])
    typer.echo(f"{store}: {text.name}")


def _existing(store: str, *, readonly: bool = False) -> LMDBStore | ObjectStore:
    from llamaindex_prag.store.opening import open_store

    return open_store(store, model=None, readonly=readonly)


def _show(data: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(data))
    else:
        typer.echo("\n".join(f"{name}: {value}" for name, value in data.items()))
