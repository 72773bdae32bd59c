"""`dynprag evaluate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraph_dynrag.commands.options import (
    DEFAULT_INDEX,
    BaseURL,
    Model,
    Quiet,
    Search,
    SearchOption,
    chat_of,
)
from langgraph_dynrag.presets.methods import PRESETS
from rag_backbone.console import as_json as json_line
from rag_backbone.console import console, given_path
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.retrievers import BaseRetriever

    from langgraph_dynrag.evaluation.judges import Judge
    from langgraph_dynrag.evaluation.questions import EvaluationQuestion

DEFAULT_RECORDS = Path(".dynprag/evaluation.jsonl")


def evaluate(
    questions: Annotated[
        Path,
        typer.Option(
            "--questions",
            help="A file: JSON lines (question, answers, supporting), one question a line, or a file of HotpotQA, "
            "2WikiMultihopQA, MuSiQue or SQuAD.",
            parser=given_path,
            metavar="FILE",
        ),
    ],
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of the questions if it is not UTF-8, such as cp1252.")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            "-i",
            help=f"The index's folder. Default: the paragraphs of a data-set file, otherwise {DEFAULT_INDEX}.",
            parser=given_path,
            metavar="FOLDER",
        ),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A method, repeatable: {', '.join(PRESETS)}, one with a threshold (flare@0.3), or a file of "
            "`dynprag calibrate`. Default: fixed_sentence and flare. no_retrieval, single and long_context are always "
            "compared.",
            metavar="NAME|FILE",
        ),
    ] = None,
    model: Model = "embedded",
    base_url: BaseURL = None,
    retriever: SearchOption = "hybrid",
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of questions; a sample if more.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Passages per search; default: each preset's.")] = None,
    long_context: Annotated[int, typer.Option(min=0, help="Passages of long_context; 0 leaves it out.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions in progress at a time.")] = 8,
    minutes: Annotated[float | None, typer.Option(help="Stop after this time; run again to resume.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample and the intervals.")] = 0,
    records: Annotated[
        Path,
        typer.Option(
            help="Where finished questions are kept; the same command resumes.", parser=given_path, metavar="FILE"
        ),
    ] = DEFAULT_RECORDS,
    judge: Annotated[
        str | None,
        typer.Option(
            help="A string evaluator of LangChain, such as qa (extra `eval`), or a metric of ragas, such as "
            "ragas:faithfulness (extra `ragas`).",
            metavar="NAME",
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="The model that judges, at --base-url or in this process. Default: --model.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a report with plots.", parser=given_path, metavar="FILE")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare methods on your own questions: answers, evidence, searches, tokens, time, and what that shows.

    An interrupted run is resumed by the same command.
    """
    quiet = quiet or console().quiet
    from langgraph_dynrag.evaluation.evaluating import DEFAULT_PRESETS
    from langgraph_dynrag.evaluation.evaluating import evaluate as compare
    from langgraph_dynrag.evaluation.question_files import load_questions

    if html is not None and html.is_dir():
        raise ConfigurationError(f"--html is the folder {html}; the name of a file is needed")
    asked = load_questions(questions, encoding=encoding)
    searcher = _searcher(asked, index, retriever)
    chat = chat_of(model, base_url)
    options: Any = {"k": k} if k is not None else {}
    found = compare(
        chat,
        searcher,
        asked,
        presets=preset or DEFAULT_PRESETS,
        limit=limit,
        long_context=long_context,
        records=records,
        concurrency=concurrency,
        minutes=math.inf if minutes is None else minutes,
        judge=_judge(judge, judge_model, chat, base_url),
        bootstrap_seed=seed,
        progress=console().shows_progress and not quiet,
        **options,
    )
    # Printed first, so that a full disk does not lose what took so long to find.
    typer.echo(json_line(found.to_dict()) if as_json else str(found))
    if html is not None:
        found.save_html(html)
        if not quiet:
            typer.secho(f"  report: {html}", err=True, dim=True)


def _searcher(asked: list[EvaluationQuestion], index: Path | None, kind: Search) -> BaseRetriever | None:
    """Return the retriever over an index; None if the questions come with their own paragraphs and none was named."""
    if index is None and all(q.paragraphs for q in asked):
        return None
    from langgraph_dynrag.retrieval import LocalIndex

    return LocalIndex(index or DEFAULT_INDEX).as_retriever(kind)


def _judge(name: str | None, model: str | None, chat: BaseChatModel, base_url: str | None) -> Judge | None:
    if name is None:
        if model is not None:
            raise ConfigurationError(f"--judge-model is {model}, but no judge was named; add --judge qa")
        return None
    judging = chat if model is None else chat_of(model, base_url)
    if name.startswith("ragas:"):
        from langgraph_dynrag.evaluation.ragas_judge import ragas_judge
        from langgraph_dynrag.retrieval import MiniLMEmbeddings

        return ragas_judge(name, judging, embeddings=MiniLMEmbeddings())
    from langgraph_dynrag.evaluation.judges import string_judge

    return string_judge(name, judging)
