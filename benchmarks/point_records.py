"""Drafting the points of many questions, several at once, each question's kept on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, note
from benchmarks.datasets import Paragraph, Question, load_questions, sample
from benchmarks.draft_points import PointWriter
from benchmarks.runs import Records, key_of
from benchmarks.single_hop import draw, load_facts

Row = dict[str, Any]


def add_options(options: argparse.ArgumentParser) -> None:
    """The options of experiments on points."""
    options.add_argument("--data", type=Path, nargs="+", required=True, help="files of multi-hop questions")
    options.add_argument("--squad", type=Path, help="a file as SQuAD 1.1, whose questions one paragraph answers")
    options.add_argument("--questions", type=int, default=50, help="of each file")
    options.add_argument("--samples", type=int, default=5, help="of SeaKR's trigger; 0 leaves it out")
    options.add_argument("--sessions", type=int, default=8, help="questions drafted at once")


def chosen(args: argparse.Namespace) -> dict[str, list[Question]]:
    """The questions of each file, by its name."""
    found = {p.stem: sample(load_questions(p), args.questions, args.seed) for p in args.data}
    if args.squad is not None:
        facts = draw(load_facts(args.squad), passages=args.questions, per_passage=1, seed=args.seed)
        found[args.squad.stem] = [
            Question(f"squad-{i}", f.question, f.answers, (Paragraph(f.title, f.passage, True),), "single")
            for i, f in enumerate(facts)
        ]
    return found


def written(
    writer: PointWriter, questions: dict[str, list[Question]], dtype: str, deadline: Deadline, sessions: int
) -> tuple[dict[str, list[Row]], bool]:
    """The drafts of all questions, and whether there was time for all."""
    records = Records("draft_points")
    keys = {(name, q.id, q.text): _key(writer, name, q, dtype) for name, qs in questions.items() for q in qs}
    missing = [(name, q) for name, qs in questions.items() for q in qs if not _known(records, keys, name, q)]
    note(f"{len(missing)} of {len(keys)} questions to be drafted")

    def one(work: tuple[str, Question]) -> None:
        name, question = work
        if deadline.over:
            return
        about = {"file": name, "question": question.id}
        records.put(keys[name, question.id, question.text], about, writer.write(question))

    with ThreadPoolExecutor(sessions) as pool:
        for i, _ in enumerate(pool.map(one, missing), 1):
            if i % 10 == 0:
                note(f"{i}/{len(missing)} drafted")
    found: dict[str, list[Row]] = {}
    for name, asked in questions.items():
        rows = [(q, records.get(keys[name, q.id, q.text])) for q in asked]
        found[name] = [{"question": q, **row} for q, row in rows if row is not None]
    return found, sum(map(len, found.values())) == len(keys)


def points_of(rows: Sequence[Row]) -> list[Row]:
    """All points, each with its question."""
    return [{"question": row["question"], **point} for row in rows for point in row["points"]]


def _known(records: Records, keys: dict[tuple[str, str, str], str], name: str, question: Question) -> bool:
    return records.get(keys[name, question.id, question.text]) is not None


def _key(writer: PointWriter, name: str, question: Question, dtype: str) -> str:
    about = {"points": 1, "file": name, "question": question.id, "text": question.text, "dtype": dtype}
    return key_of({**about, **writer.description})
