"""Draft the points of many questions concurrently, and keep those of each question on disk."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, note
from benchmarks.datasets import Paragraph, Question, load_questions, sample
from benchmarks.draft_points import PointWriter
from benchmarks.runs import Records, key_of
from benchmarks.single_hop import draw, load_facts
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel

Row = dict[str, Any]


def add_options(options: argparse.ArgumentParser) -> None:
    """Add the options of experiments on points."""
    options.add_argument("--data", type=Path, nargs="+", required=True, help="files of multi-hop questions")
    options.add_argument("--squad", type=Path, help="a SQuAD 1.1 file, whose questions one paragraph answers")
    options.add_argument("--questions", type=int, default=50, help="questions from each file")
    options.add_argument("--samples", type=int, default=5, help="samples for SeaKR's trigger")
    options.add_argument("--sampled", type=int, default=10, help="questions from each file that SeaKR's trigger judges")
    options.add_argument("--sessions", type=int, default=8, help="questions drafted concurrently")


def chosen(args: argparse.Namespace) -> dict[str, list[Question]]:
    """Return the questions of each file, by its name."""
    found = {p.stem: sample(load_questions(p), args.questions, args.seed) for p in args.data}
    if args.squad is not None:
        found[args.squad.stem] = single_hop(args.squad, args.questions, args.seed)
    return found


def single_hop(path: Path, count: int, seed: int) -> list[Question]:
    """Return at most `count` questions that one passage answers, each of another passage."""
    facts = draw(load_facts(path), passages=count, per_passage=1, seed=seed)
    return [
        Question(f"{f.data}-{i}", f.question, f.answers, (Paragraph(f.title, f.passage, True),), "single")
        for i, f in enumerate(facts)
    ]


def written(
    chat: LocalChatModel,
    questions: Mapping[str, Sequence[Question]],
    args: argparse.Namespace,
    deadline: Deadline,
    *,
    signals_only: bool = False,
) -> tuple[dict[str, list[Row]], bool]:
    """Return the drafts of all questions by file, and whether there was time for all of them.

    With `signals_only`, the points are those that a learned trigger is trained on, and nothing else is recorded.
    """
    records = Records("draft_points")
    others = PointWriter(chat, samples=0, signals_only=signals_only)
    sampling = others if signals_only else PointWriter(chat, samples=args.samples)
    work = []
    for name, asked in questions.items():
        for i, question in enumerate(asked):
            writer = others if signals_only or i >= args.sampled else sampling
            work.append((writer, name, question, record_key(writer, name, question, args.dtype)))
    missing = [w for w in work if records.get(w[3]) is None]
    note(f"{len(missing)} of {len(work)} questions to draft")

    def one(item: tuple[PointWriter, str, Question, str]) -> None:
        writer, name, question, key = item
        if not deadline.over:
            records.put(key, {"file": name, "question": question.id}, writer.write(question))

    with ThreadPoolExecutor(args.sessions) as pool:
        for i, _ in enumerate(pool.map(one, missing), 1):
            if i % 10 == 0:
                note(f"{i}/{len(missing)} drafted")
    found: dict[str, list[Row]] = {name: [] for name in questions}
    for _, name, question, key in work:
        row = records.get(key)
        if row is not None:
            found[name].append({"question": question, **row})
    return found, sum(map(len, found.values())) == len(work)


def points_of(rows: Sequence[Row]) -> list[Row]:
    """Return all points, each with its question."""
    return [{"question": row["question"], **point} for row in rows for point in row["points"]]


def record_key(writer: PointWriter, name: str, question: Question, dtype: str, **more: object) -> str:
    """Return the key of a question's drafts."""
    about = {"points": 1, "file": name, "question": question.id, "text": question.text, "dtype": dtype}
    return key_of({**about, **writer.description, **more})
