"""`dynprag index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langgraph_dynrag.commands.options import DEFAULT_INDEX, IndexFolder, Quiet
from rag_backbone.console import as_json as json_line
from rag_backbone.console import console, given_path, stdout_to_stderr
from rag_backbone.errors import ConfigurationError


def index(
    folder: Annotated[
        Path | None,
        typer.Argument(help="A folder, or a file, of documents.", parser=given_path, metavar="[FOLDER|FILE]"),
    ] = None,
    into: IndexFolder = DEFAULT_INDEX,
    characters: Annotated[int, typer.Option(help="Maximum number of characters of a chunk.")] = 900,
    overlap: Annotated[int, typer.Option(help="Characters that neighbouring chunks share.")] = 100,
    encoding: Annotated[str | None, typer.Option(help="Encoding of files that are not UTF-8, such as cp1252.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Glob pattern to exclude; repeatable.")] = None,
    forget: Annotated[
        list[str] | None,
        typer.Option(help="Remove what came from this folder, file or other source; repeatable.", metavar="SOURCE"),
    ] = None,
    *,
    listing: Annotated[bool, typer.Option("--list", help="List the sources of the index.")] = False,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also read hidden files and tool folders.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(help="Embed on a Ray cluster: HOST:PORT, auto or local (extra `ray`).", metavar="ADDRESS"),
    ] = None,
    ray_cpus: Annotated[float | None, typer.Option(help="With --ray: CPUs of a task.")] = None,
    _quiet: Quiet = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Index documents, list what is indexed, or remove it. Unchanged files are skipped."""
    from contextlib import ExitStack
    from dataclasses import asdict

    from langgraph_dynrag.retrieval import LocalIndex, MiniLMEmbeddings, RayEmbeddings, Splitter

    asked = {"FOLDER": folder is not None, "--forget": bool(forget), "--list": listing}
    if sum(asked.values()) != 1:
        given = " and ".join(name for name, is_given in asked.items() if is_given) or "nothing"
        raise ConfigurationError(f"{given} was given; give one of FOLDER, --forget SOURCE and --list")
    if (ray is not None and folder is None) or (ray is None and ray_cpus is not None):
        raise ConfigurationError("--ray needs FOLDER, and --ray-cpus needs --ray ADDRESS")
    with ExitStack() as stack:
        embeddings: Any = MiniLMEmbeddings()
        if ray is not None:
            stack.enter_context(stdout_to_stderr())  # Ray tells of its nodes on stdout
            cpus = 1 if ray_cpus is None else ray_cpus
            embeddings = stack.enter_context(RayEmbeddings(embeddings, ray, num_cpus=cpus))
        built = LocalIndex(into, embeddings=embeddings, splitter=Splitter(characters, overlap))
        if listing:
            sources = built.sources()
            if as_json:
                typer.echo(json_line([asdict(s) for s in sources]))
            else:
                typer.echo("\n".join(map(str, sources)) or f"{into}: empty")
            return
        if folder is not None:
            progress = console().shows_progress
            reports = [built.ingest(folder, encoding=encoding, exclude=exclude or (), hidden=hidden, progress=progress)]
        else:
            reports = [built.remove(source) for source in forget or ()]
    for report in reports:
        typer.echo(json_line(asdict(report)) if as_json else f"{into}: {report}")
