"""Ask questions with and without adapters, and keep every answer on disk.

A record is one question under one condition. Its key covers everything that the answer depends on (model, dtype,
adapters, prompt), so overlapping experiments share answers, and an interrupted one can be resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.contract import Deadline, note, records_folder
from benchmarks.runs import Records, key_of
from llamaindex_prag.adapters.active_adapters import ActiveAdapters, Merge
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.adapters.recipe import Recipe
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer, Report
from llamaindex_prag.passages import Passage
from llamaindex_prag.prompts import clean_answer, prompt_ids
from llamaindex_prag.store.encoding import Encoding
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.engine.adapters import Ensemble
from rag_backbone.engine.ensemble import AdapterEnsemble
from rag_backbone.engine.requests import Request
from rag_backbone.loading.causal_lm import CausalLM

ANSWER_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Asked:
    """A question under one condition."""

    question: str
    passages: tuple[str, ...] = ()
    """Passages in the prompt."""
    adapters: tuple[AdapterKey, ...] = ()
    strength: float = 1.0
    encoding: Encoding = "bfloat16"
    """Encoding of the stored adapters."""
    scores: tuple[float, ...] = ()
    """Scores that weight the adapters in the merge or ensemble; if empty, they have equal weights."""
    merge: Merge = "mean"
    """How several updates are combined; with scores, `"mean"` is `"score"`."""
    ensemble: Ensemble | None = None
    """How next-token distributions are mixed instead."""


class Answers:
    """Asks a model questions and keeps the answers.

    Args:
        lm: The model.
        dtype: The model's dtype, part of each record's key.
        together: Number of questions in a batch.
        writer: The model that wrote the questions that the adapters were trained on, part of each record's key; None:
            the model itself.
    """

    def __init__(self, lm: CausalLM, dtype: str, *, together: int = 16, writer: CausalLM | None = None) -> None:
        self._lm = lm
        self._dtype = dtype
        self._together = together
        self._writer = writer
        self._records = Records("parametric_answers")

    def known(self, asked: Asked) -> str | None:
        """Return the recorded answer, or None if there is none."""
        found = self._records.get(key_of(self._about(asked)))
        return None if found is None else str(found["answer"])

    def ask(self, questions: Sequence[Asked], model: ParametricModel | None, deadline: Deadline) -> bool:
        """Answer the questions that have no answer yet, in batches; return whether all have one."""
        missing = [a for a in dict.fromkeys(questions) if self.known(a) is None]
        # Sequences of a batch are prefilled one by one, so neighbours with the same passage share its prefill.
        for start in range(0, len(missing), self._together):
            if deadline.over:
                return False
            part = missing[start : start + self._together]
            requests = [self._request(asked, model) for asked in part]
            for asked, found in zip(part, self._lm.engine.generate_batch(requests), strict=True):
                record = {"answer": clean_answer(found.text), "prompt_tokens": found.prompt_tokens}
                self._records.put(key_of(self._about(asked)), self._about(asked), record)
        return True

    def prompt_tokens(self, asked: Asked) -> int:
        """Return the number of prompt tokens."""
        return len(prompt_ids(self._lm.tokenizer, asked.question, asked.passages))

    def _request(self, asked: Asked, model: ParametricModel | None) -> Request:
        acting: ActiveAdapters | AdapterEnsemble | None = None
        if asked.adapters:
            assert model is not None
            keys, strength, scores = asked.adapters, asked.strength, asked.scores or None
            if asked.ensemble is not None:
                acting = model.ensemble(keys, kind=asked.ensemble, strength=strength, scores=scores)
            else:
                merge: Merge = "score" if asked.scores and asked.merge == "mean" else asked.merge
                acting = model.select(keys, merge=merge, strength=strength, scores=scores)
        return Request(self._ids(asked), ANSWER_TOKENS, adapters=acting)

    def _ids(self, asked: Asked) -> list[int]:
        return prompt_ids(self._lm.tokenizer, asked.question, asked.passages)

    def _about(self, asked: Asked) -> dict[str, object]:
        return {
            "model": self._lm.fingerprint,
            "dtype": self._dtype,
            "ids": self._ids(asked),
            "adapters": [key.digest for key in asked.adapters],
            "strength": asked.strength if asked.adapters else 0.0,
            "answer_tokens": ANSWER_TOKENS,
            **({} if asked.encoding == "bfloat16" else {"encoding": asked.encoding}),
            **({"scores": asked.scores} if asked.scores else {}),
            **({} if asked.merge == "mean" else {"merge": asked.merge}),
            **({} if asked.ensemble is None else {"ensemble": asked.ensemble}),
            **({"writer": self._writer.fingerprint} if asked.adapters and self._writer is not None else {}),
        }


def open_store(
    lm: CausalLM, kind: Literal["bfloat16", "int4", "translated"] = "bfloat16", *, writer: CausalLM | None = None
) -> LMDBStore:
    """Open one of the stores in which the benchmarks keep a model's adapters, outside the project.

    `"int4"` stores adapters with 4 bits per value. `"translated"` holds only what a translator stores, and no trained
    adapters. Adapters trained on the questions of another model, `writer`, have a store of their own.
    """
    name = lm.fingerprint[:16] + ("" if kind == "bfloat16" else f"-{kind}")
    name += "" if writer is None else f"-by-{writer.fingerprint[:16]}"
    encoding: Encoding = "int4" if kind == "int4" else "bfloat16"
    return LMDBStore(records_folder() / "adapters" / name, model=lm.fingerprint, encoding=encoding)


def copy_adapters(source: LMDBStore, target: LMDBStore, keys: Sequence[AdapterKey]) -> None:
    """Copy adapters to another store, in the encoding of that store."""
    for key in keys:
        adapter = source.get(key)
        if adapter is not None and key not in target:
            target.put(key, adapter, source.record(key) or {})


def parametrize(
    model: ParametricModel,
    make: Callable[[ParametricModel], Parametrizer],
    passages: Sequence[Passage],
    deadline: Deadline,
    *,
    together: int = 8,
) -> bool:
    """Create missing adapters, group by group; return whether there was time for all of them."""
    maker = make(model)
    missing = [p for p in dict.fromkeys(passages) if not model.knows(p.text)]
    total, started = len(missing), time.perf_counter()
    for group in _groups(missing, together):
        if deadline.over:
            return False
        report = maker.parametrize(group, progress=False)
        done = len(passages) - sum(not model.knows(p.text) for p in passages)
        seconds = time.perf_counter() - started
        note(
            f"{model.recipe.name}: {done}/{len(passages)} passages, {report.seconds / len(group):.1f} s each, "
            f"{seconds / 60:.0f} min for {total}{_skipped(report)}"
        )
    return True


def recipe_model(lm: CausalLM, store: LMDBStore, recipe: Recipe, *, max_adapters: int = 1) -> ParametricModel:
    """Attach a model with the adapters of another recipe; the engine supports one recipe at a time."""
    return ParametricModel(lm, store, recipe=recipe, max_adapters=max_adapters, slots=16).attach()


def _groups(items: Sequence[Passage], size: int) -> Iterator[Sequence[Passage]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _skipped(report: Report) -> str:
    return f", {report.skipped} skipped with nothing to train on" if report.skipped else ""
