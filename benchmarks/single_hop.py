"""Read questions that one passage answers: SQuAD's, steps of MuSiQue and 2WikiMultihopQA, the project's own."""

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
    """Read SQuAD 1.1, MuSiQue-Ans, 2WikiMultihopQA with its `qa_pairs`, or a folder of the project's own.

    Such a folder holds `corpus.jsonl` and `questions.jsonl`.

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
        content = json.loads(path.read_text("utf-8"))
        return _two_wiki(content) if isinstance(content, list) else _squad(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is neither SQuAD 1.1 nor MuSiQue-Ans nor 2WikiMultihopQA ({error!r})"
        ) from error


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


def _squad(content: Any) -> list[Fact]:
    found = []
    for article in content["data"]:
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


def _two_wiki(content: Any) -> list[Fact]:
    """Read the steps of each question that name one paragraph, which contains the answer."""
    found: dict[tuple[str, str], Fact] = {}
    for item in content:
        paragraphs = {title: " ".join(s.strip() for s in sentences) for title, sentences in item["context"]}
        titles = [title for title, _ in item["supporting_facts"]]
        steps, triples = item.get("qa_pairs") or [], item["evidences"]
        if not len(steps) == len(triples) == len(titles):
            continue
        for step, (_, _, answer), title in zip(steps, triples, titles, strict=True):
            passage = paragraphs.get(title, "")
            if answer.lower() in passage.lower():
                found[passage, step["question"]] = Fact("2wiki", title, passage, step["question"], (answer,))
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
