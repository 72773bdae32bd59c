"""Ask a graph questions, measure its answers, evidence and cost, and keep every finished question on disk.

A record is one question under one configuration. Its key covers everything that the result depends on, so overlapping
experiments share records, and an interrupted one can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from benchmarks.contract import Deadline, note, records_folder
from benchmarks.datasets import Question
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.prompts import AnswerPrompt
from rag_backbone.documents.json_lines import rows
from rag_backbone.engine.kv_cache import SequenceCache
from rag_backbone.engine.requests import Request
from rag_backbone.loading.causal_lm import CausalLM, DType
from rag_backbone.metrics import exact_match, f1

REVISION = 3
"""Incremented when a code change invalidates earlier records."""

Graph = CompiledStateGraph[Any, Any, Any, Any]


class Records:
    """Records of finished questions, in one JSON-lines file; several processes may append to it."""

    def __init__(self, name: str) -> None:
        self._path = records_folder() / f"{name}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        if self._path.is_file():
            for row in rows(self._path):
                try:
                    self._known[row.value["key"]] = row.value["record"]
                except (KeyError, TypeError):
                    continue  # the last line of a process that was killed while it wrote

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the record of a key, or None if there is none."""
        return self._known.get(key)

    def put(self, key: str, about: Mapping[str, Any], record: dict[str, Any]) -> None:
        """Append a record to the file."""
        line = json.dumps({"key": key, "about": about, "record": record}, ensure_ascii=False)
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._known[key] = record


def key_of(about: Mapping[str, Any]) -> str:
    """Return a key that is equal exactly if the descriptions are equal."""
    text = json.dumps({**about, "revision": REVISION}, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def load_chat(model: str, dtype: DType) -> LocalChatModel:
    """Load the benchmark's model as a chat model."""
    return LocalChatModel.from_causal_lm(CausalLM.from_pretrained(model, dtype=dtype))


class SamePrefix:
    """Resets an engine's prefix cache before every measurement, so that it contains only the fixed prompt.

    Otherwise, methods that alternate on one question would reuse each other's prompts.
    """

    def __init__(self, chat: LocalChatModel, prompt: AnswerPrompt) -> None:
        self._engine = chat.lm.engine
        *fixed, _ = prompt.messages("?", ())
        ids = chat.encode(fixed).ids
        self._engine.prefixes.clear()
        self._engine.generate(Request(ids, max_new_tokens=1))
        known = self._engine.prefixes.take(None, [*ids, 0])
        assert known is not None
        self._known: list[tuple[Hashable, SequenceCache]] = [(None, known)]

    def keep(self) -> None:
        """Make the current content of the cache the state to restore."""
        self._known = self._engine.prefixes.entries()

    def restore(self) -> None:
        """Restore the cache to the kept state."""
        self._engine.prefixes.clear()
        for key, sequence in self._known:  # requests that continue from an entry copy it
            self._engine.prefixes.put(key, sequence)


@dataclass(frozen=True, slots=True)
class Job:
    """One question under one configuration."""

    about: dict[str, Any]
    question: Question
    build: Callable[[], Graph]


def run(jobs: Sequence[Job], records: Records, deadline: Deadline, sessions: int) -> bool:
    """Ask all questions that have no record yet, `sessions` at a time.

    Several sessions share the engine's forward passes, so their seconds are not those of a single session; the answers
    are the same.

    Returns:
        True if all are done, False if the deadline passed first.
    """
    missing = [job for job in jobs if records.get(key_of(job.about)) is None]
    done = len(jobs) - len(missing)

    def one(job: Job) -> bool:
        if deadline.over:
            return False
        records.put(key_of(job.about), job.about, ask(job.build(), job.question))
        return True

    complete = True
    with ThreadPoolExecutor(sessions) as pool:
        for finished in pool.map(one, missing):
            complete &= finished
            done += finished
            if finished and done % 10 == 0:
                note(f"{done}/{len(jobs)} questions asked")
    return complete


def run_timed(jobs: Sequence[Job], records: Records, deadline: Deadline, same: SamePrefix) -> bool:
    """Ask questions one at a time, each from the same state of the prefix cache, and record meaningful seconds."""
    for i, job in enumerate(jobs):
        key = key_of(timed(job.about))
        if records.get(key) is not None:
            continue
        if deadline.over:
            return False
        graph = job.build()
        same.restore()
        records.put(key, timed(job.about), ask(graph, job.question))
        note(f"{i + 1}/{len(jobs)} timed")
    return True


def timed(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of the same question, asked alone and timed."""
    return {**about, "timed": True}


def ask(graph: Graph, question: Question) -> dict[str, Any]:
    """Ask a question, and measure answer, evidence and cost."""
    started = time.perf_counter()
    out = graph.invoke({"question": question.text})
    seconds = time.perf_counter() - started
    events = out["trace"]
    drafts = [e for e in events if e["type"] == "draft"]
    searches = [e for e in events if e["type"] == "retrieval"]
    found = {d["id"] for e in searches for d in e["documents"]}
    return {
        "answer": out["answer"],
        "short_answer": out["short_answer"],
        "em": exact_match(out["short_answer"], question.answers),
        "f1": f1(out["short_answer"], question.answers),
        "recall": len(question.supporting & found) / max(len(question.supporting), 1),
        "retrievals": len(searches),
        "nothing_new": sum(1 for e in searches if not any(d["new"] for d in e["documents"])),
        "generated_tokens": sum(len(e["pieces"]) - e["carried"] for e in drafts)
        + sum(e.get("generated_tokens", 0) for e in events),
        "forward_tokens": sum(e.get("forward_tokens", 0) for e in events),
        "prompt_tokens": max((e.get("prompt_tokens", 0) for e in drafts), default=0),
        "seconds": seconds,
        "queries": [e["query"] for e in searches],
    }
