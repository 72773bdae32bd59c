"""Build a corpus to train a translator on from train files: passages with the single-step questions that they answer.

    python -m benchmarks.translator_corpus --out corpus.jsonl FILE ...

Reads JSON lines of passages (`title`, `text`), MuSiQue-Ans (its steps) and 2WikiMultihopQA (`qa_pairs`, with the short
answers of `evidences`). Duplicate passages are merged, with all their questions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contract import note
from benchmarks.single_hop import load_facts
from rag_backbone.documents import read_json_lines
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.cache_folder import atomic_file

Found = tuple[str, str, dict[str, str] | None]
"""Title, text, and a question with its answer, or None."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the files, and write the corpus."""
    options = argparse.ArgumentParser(description="Build a corpus to train a translator on.")
    options.add_argument("files", nargs="+", type=Path)
    options.add_argument("--out", type=Path, required=True)
    args = options.parse_args(arguments)
    lessons: dict[str, dict[str, Any]] = {}
    for path in args.files:
        before = len(lessons)
        for title, text, question in read(path):
            lesson = lessons.setdefault(text, {"title": title, "text": text, "questions": []})
            if question is not None and question not in lesson["questions"]:
                lesson["questions"].append(question)
        note(f"{path.name}: {len(lessons) - before} passages")
    asked = sum(len(lesson["questions"]) for lesson in lessons.values())
    with atomic_file(args.out) as file:
        file.write_text("".join(json.dumps(lesson, ensure_ascii=False) + "\n" for lesson in lessons.values()), "utf-8")
    note(f"{args.out}: {len(lessons)} passages, {asked} questions")


def read(path: Path) -> Iterator[Found]:
    """Yield the passages of one file.

    Raises:
        ConfigurationError: If the file is missing or of another format.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no data file {path}")
    try:
        if path.suffix == ".json":
            for item in json.loads(path.read_text("utf-8")):
                yield from _steps(item)
        elif "paragraphs" in next(read_json_lines(path))[1]:
            for fact in load_facts(path):
                yield fact.title, fact.passage, {"question": fact.question, "answer": fact.answers[0]}
        else:
            for _, passage in read_json_lines(path):
                yield passage["title"], passage["text"].strip(), None
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} contains neither passages, MuSiQue-Ans nor 2WikiMultihopQA: {error!r}"
        ) from error


def _steps(item: dict[str, Any]) -> Iterator[Found]:
    """Yield the paragraphs of a 2WikiMultihopQA question, and the steps whose answer occurs in their paragraph."""
    pairs = list(zip(item.get("qa_pairs", []), item["evidences"], strict=False))
    for title, sentences in item["context"]:
        text = " ".join(s.strip() for s in sentences)
        subject = title.partition(" (")[0]
        asked = [
            {"question": pair["question"], "answer": answer}
            for pair, (about, _, answer) in pairs
            if about.partition(" (")[0] == subject and answer in text and answer in pair["answer"]
        ]
        yield title, text, None
        for question in asked:
            yield title, text, question


if __name__ == "__main__":
    main()
