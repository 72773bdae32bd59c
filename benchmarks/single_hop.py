"""Read questions that one passage answers: SQuAD's paragraphs, MuSiQue's steps, the project's own corpora."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_backbone.documents import read_json_lines
from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Fact:
    """A question and the passage that answers it."""

    data: str
    """Short name of the data file."""
    title: str
    passage: str
    question: str
    answers: tuple[str, ...]


def load_facts(path: Path) -> list[Fact]:
    """Read SQuAD 1.1, MuSiQue-Ans, or a folder with the project's own `corpus.jsonl` and `questions.jsonl`.

    Raises:
        ConfigurationError: If the file is missing or of another format.
    """
    if path.is_dir():
        return _own(path)
    if not path.is_file():
        raise ConfigurationError(f"there is no data file {path}")
    try:
        if path.suffix == ".jsonl":
            return _musique(path)
        return _squad(path)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path} is neither SQuAD 1.1 nor MuSiQue-Ans ({error!r})") from error


def by_passage(facts: Sequence[Fact]) -> dict[str, list[Fact]]:
    """Group facts by their passage, in order."""
    found: dict[str, list[Fact]] = {}
    for fact in facts:
        found.setdefault(fact.passage, []).append(fact)
    return found


def draw(facts: Sequence[Fact], *, passages: int, per_passage: int, seed: int) -> list[Fact]:
    """Draw `passages` passages by the seed, and from each of them at most `per_passage` facts."""
    rng = random.Random(seed)
    grouped = by_passage(facts)
    chosen = rng.sample(sorted(grouped), min(passages, len(grouped)))
    return [f for p in chosen for f in rng.sample(grouped[p], min(per_passage, len(grouped[p])))]


def _squad(path: Path) -> list[Fact]:
    found = []
    for article in json.loads(path.read_text("utf-8"))["data"]:
        title = article["title"].replace("_", " ")
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answers = tuple(dict.fromkeys(a["text"] for a in qa["answers"]))
                if answers:
                    found.append(Fact("squad", title, paragraph["context"], qa["question"].strip(), answers))
    return found


def _musique(path: Path) -> list[Fact]:
    """Read the steps of each question; `#1` in a step stands for the first step's answer."""
    found: dict[tuple[str, str], Fact] = {}
    for _, item in read_json_lines(path):
        known: list[str] = []
        for step in item["question_decomposition"]:
            question = step["question"]
            for number, answer in enumerate(known, 1):
                question = question.replace(f"#{number}", answer)
            known.append(step["answer"])
            paragraph: dict[str, Any] = item["paragraphs"][step["paragraph_support_idx"]]
            fact = Fact("musique", paragraph["title"], paragraph["paragraph_text"], question, (step["answer"],))
            found[fact.passage, question] = fact
    return list(found.values())


def _own(folder: Path) -> list[Fact]:
    documents = {d.get("id", d["title"]): d for _, d in read_json_lines(folder / "corpus.jsonl")}
    found = []
    for _, item in read_json_lines(folder / "questions.jsonl"):
        if item["hops"] == 1:
            document = documents[item["documents"][0]]
            answers = tuple(item["answers"])
            found.append(Fact(folder.name, document["title"], document["text"], item["question"], answers))
    return found
