"""Ask a graph questions for a benchmark, and keep every finished question on disk.

Asking, records and keys are those of `langgraph_dynrag.evaluation`; what is added is the folder of the records, and a
pass that measures seconds.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from benchmarks.contract import Deadline, note, records_folder
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.evaluation import asking, records
from langgraph_dynrag.evaluation.asking import Job, ask
from langgraph_dynrag.evaluation.records import key_of
from langgraph_dynrag.prompts import AnswerPrompt
from rag_backbone.engine.kv_cache import SequenceCache
from rag_backbone.engine.requests import Request
from rag_backbone.loading.causal_lm import CausalLM, DType

__all__ = ["Job", "Records", "SamePrefix", "ask", "key_of", "load_chat", "run", "run_timed", "timed"]


class Records(records.Records):
    """Records of a benchmark, in the folder that all benchmarks share."""

    def __init__(self, name: str) -> None:
        super().__init__(records_folder() / f"{name}.jsonl")


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


def run(jobs: Sequence[Job], records: Records, deadline: Deadline, sessions: int) -> bool:
    """Ask all questions that have no record yet, `sessions` at a time.

    Returns:
        True if all are done, False if the deadline passed first.
    """
    done = sum(1 for job in jobs if records.get(job.key) is not None)

    def told() -> None:
        nonlocal done
        done += 1
        if done % 10 == 0:
            note(f"{done}/{len(jobs)} questions asked")

    return asking.run(jobs, records, deadline, sessions, on_done=told)


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
