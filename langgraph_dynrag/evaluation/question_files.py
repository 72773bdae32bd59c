"""Read questions from files: JSON lines, plain text, or the files of HotpotQA, 2WikiMultihopQA, MuSiQue and SQuAD.

The format is recognised by the content, entry by entry, not by the name of the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from langgraph_dynrag.evaluation.questions import EvaluationQuestion, Paragraph
from rag_backbone.checks import clause
from rag_backbone.documents import read_json_lines, read_text_file
from rag_backbone.documents.decoding import UndecodableError
from rag_backbone.errors import ConfigurationError

_FORMATS = (
    'JSON lines such as {"question": "...", "answers": ["..."], "supporting": ["title"]}, plain text with one question '
    "per line, or a file of HotpotQA, 2WikiMultihopQA, MuSiQue or SQuAD"
)

_NOT_TEXT = {
    ".csv": "a table",
    ".tsv": "a table",
    ".yaml": "YAML",
    ".yml": "YAML",
    ".xml": "XML",
    ".html": "HTML",
    ".htm": "HTML",
}
"""What files are that hold text, but not one question per line."""


def load_questions(path: str | Path, *, encoding: str | None = None) -> list[EvaluationQuestion]:
    """Return the questions of a file. Those that a data set marks as unanswerable are left out.

    Args:
        path: The file, in UTF-8 or with a byte-order mark.
        encoding: Encoding of a file that is neither.

    Raises:
        ConfigurationError: If the file is missing, holds no question, or an entry is not one; the message names the
            line or entry and what is needed.
    """
    file = Path(path)
    if file.is_dir():
        raise ConfigurationError(f"{file} is a folder; a file of questions is needed: {_FORMATS}")
    if not file.is_file():
        raise ConfigurationError(f"there is no file of questions {file}")
    found = [q for where, entry in _entries(file, encoding) for q in _read(entry, where)]
    if not found:
        raise ConfigurationError(f"{file} contains no questions; needed are {_FORMATS}")
    return found


def _entries(file: Path, encoding: str | None) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a file, each with where it stands."""
    text = read_text_file(file, encoding).strip()
    is_lines = file.suffix.lower() in (".jsonl", ".ndjson") or (
        text.startswith("{") and _is_json(text.partition("\n")[0]) and "\n" in text
    )
    if is_lines:
        try:
            for number, value in read_json_lines(file, encoding):
                yield f"{file}, line {number}: ", value
        except UndecodableError:
            raise
        except ConfigurationError as error:
            raise ConfigurationError(f"{clause(error)}; needed are {_FORMATS}") from error
    elif text.startswith(("[", "{")) or file.suffix.lower() == ".json":
        try:
            value = json.loads(text) if text else []
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{file} is not valid JSON: {error}; needed are {_FORMATS}") from error
        if isinstance(value, dict) and isinstance(value.get("data"), list):
            yield from ((f"{file}, article {i}: ", article) for i, article in enumerate(value["data"], 1))
        else:
            entries = value if isinstance(value, list) else [value]
            yield from ((f"{file}, entry {i}: ", entry) for i, entry in enumerate(entries, 1))
    else:
        _refuse_markup(file, text)
        # splitlines() would also split inside a question, at U+2028 and similar characters.
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{file}, line {number}: ", line


def _refuse_markup(file: Path, text: str) -> None:
    """Refuse tables and markup, each line of which would be asked as a question.

    Raises:
        ConfigurationError: If the first line names the columns of a table, or the file's name says what it is.
    """
    first = text.partition("\n")[0].strip()
    columns = {c.strip().strip("\"'").casefold() for c in re.split(r"[,;|\t]", first)}
    kind = "a table" if len(columns) > 1 and columns & {"question", "questions"} else _NOT_TEXT.get(file.suffix.lower())
    if kind is not None:
        raise ConfigurationError(f"{file}, line 1: {first[:80]!r} is the start of {kind}; needed are {_FORMATS}")


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _read(entry: Any, where: str) -> list[EvaluationQuestion]:
    """Return the questions of one entry, in the format that its fields show."""
    if isinstance(entry, Mapping):
        for name, fields, read in _DATA_SETS:
            if all(field in entry for field in fields):
                try:
                    return [EvaluationQuestion.of(q, where) for q in read(entry)]
                except ConfigurationError:
                    raise
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise ConfigurationError(
                        f"{where}with the keys {', '.join(fields)} this is an entry of {name}, but it does not have "
                        f"its format ({error!r})"
                    ) from error
        if not isinstance(entry.get("question"), str):
            raise ConfigurationError(
                f"{where}an object with the keys {', '.join(map(str, list(entry)[:6])) or '(none)'} is not a question; "
                f"needed are {_FORMATS}"
            )
    return [EvaluationQuestion.of(entry, where)]


def _hotpot(item: Mapping[str, Any]) -> list[EvaluationQuestion]:
    titles = {title for title, _ in item["supporting_facts"]}
    paragraphs = tuple(
        Paragraph(title, " ".join(s.strip() for s in sentences), title in titles)
        for title, sentences in item["context"]
    )
    answers = (item["answer"],) if "answer" in item else ()
    identity = str(item.get("_id") or item.get("id") or item["question"])
    return [EvaluationQuestion(identity, item["question"], answers, paragraphs, item.get("type", ""))]


def _musique(item: Mapping[str, Any]) -> list[EvaluationQuestion]:
    if not item.get("answerable", True):
        return []
    paragraphs = tuple(
        Paragraph(p["title"], p["paragraph_text"], bool(p.get("is_supporting"))) for p in item["paragraphs"]
    )
    answers = (item["answer"], *item.get("answer_aliases", [])) if "answer" in item else ()
    kind = item["id"].split("__")[0]
    return [EvaluationQuestion(item["id"], item["question"], answers, paragraphs, kind)]


def _squad(article: Mapping[str, Any]) -> list[EvaluationQuestion]:
    title = article.get("title") or ""
    found = []
    for paragraph in article["paragraphs"]:
        passage = (Paragraph(title, paragraph["context"], supporting=True),)
        for asked in paragraph["qas"]:
            if asked.get("is_impossible"):
                continue
            answers = tuple(dict.fromkeys(a["text"] for a in asked["answers"]))
            text = asked["question"].strip()
            found.append(EvaluationQuestion(str(asked.get("id") or text), text, answers, passage))
    return found


_DATA_SETS = (
    ("HotpotQA or 2WikiMultihopQA", ("question", "context", "supporting_facts"), _hotpot),
    ("MuSiQue", ("question", "paragraphs"), _musique),
    ("SQuAD", ("paragraphs",), _squad),
)
"""Name, the keys that an entry is recognised by, and the reader of each data set."""
