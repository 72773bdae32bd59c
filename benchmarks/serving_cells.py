"""Ask a vLLM server questions with one method, several at a time, and measure what the server computed for them."""

from __future__ import annotations

import json
import os
import statistics
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain_core.documents import Document
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from benchmarks.contract import Deadline, note
from benchmarks.scoring import mean
from benchmarks.vllm_counters import Counters
from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.evaluation.asking import Graph
from langgraph_dynrag.generators.server_policy import ServerPolicy
from langgraph_dynrag.graph import create_dynamic_rag
from langgraph_dynrag.injection.parametric import ParametricInjector, WeightsPrompt
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.trace.trace import Trace
from llamaindex_prag.passages import Passage
from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.metrics import f1

METHODS = ("single", "flare", "injected, short", "injected")
COLUMNS = (
    *("method", "sessions", "questions/s", "seconds", "ttft", "searches", "requests"),
    *("prompt", "cached", "computed", "generated", "kept", "f1", "in_weights", "failed", "retried"),
)
_PASSAGES = 2
"""Passages that a search returns: FLARE's number, for all methods."""
_TIMEOUT = 900.0
"""Seconds for a request, which may wait for many others."""


class Served:
    """A vLLM server and the corpus that its sessions search.

    Args:
        model: The server's model, with the adapters of the passages.
        passages: The corpus.
        tokens: Maximum tokens of an answer.
    """

    def __init__(self, model: ServedModel, passages: Sequence[Passage], tokens: int) -> None:
        self._model, self._passages, self._budgets = model, passages, Budgets(tokens=tokens)
        documents = [Document(p.text, metadata={"title": p.title, "source": p.title}) for p in passages]
        self._retriever = BM25Retriever.from_documents(documents, k=_PASSAGES)

    def version(self) -> str:
        """Return vLLM's version."""
        with urllib.request.urlopen(f"{self._model.server.root_url}/version", timeout=60) as reply:
            return str(json.load(reply)["version"])

    def load_adapters(self) -> float:
        """Load each passage's adapter into the server; return the median milliseconds of one."""
        seconds = []
        for passage in self._passages:
            started = time.perf_counter()
            with self._model.name_of(self._model.select([self._model.key(passage.text)])):
                seconds.append(time.perf_counter() - started)
        return 1000 * statistics.median(seconds)

    def measured(
        self, method: str, sessions: int, questions: Sequence[Mapping[str, Any]], deadline: Deadline
    ) -> dict[str, Any] | None:
        """Ask the first question as a warm-up, then the others, `sessions` at a time.

        Returns:
            Figures under the names in `COLUMNS`; None if the deadline passed before the last question was asked.
        """
        if deadline.over:
            return None
        graph = self._graph(method, salt=f"{method}, {sessions}")
        first, *others = questions
        graph.invoke({"question": first["question"]})
        before, started = Counters.read(self._model.server.root_url), time.perf_counter()
        with ThreadPoolExecutor(sessions) as pool:
            found = list(pool.map(lambda row: None if deadline.over else _asked(graph, row), others))
        seconds = time.perf_counter() - started
        spent = Counters.read(self._model.server.root_url) - before
        answered = [row for row in found if row]
        if None in found or not answered:
            return None
        each = {name: mean([row[name] for row in answered]) for name in ("seconds", "searches", "kept", "f1")}
        n = len(found)
        return {
            "method": method,
            "sessions": sessions,
            "questions/s": n / seconds,
            **each,
            "ttft": spent.first_token_seconds / spent.requests,
            "requests": spent.requests / n,
            "prompt": spent.prompt / n,
            "cached": spent.cached / n,
            "computed": (spent.prompt - spent.cached) / n,
            "generated": spent.generated / n,
            "failed": n - len(answered),
            "retried": sum(row["retried"] for row in answered),
            "in_weights": sum(row["in_weights"] for row in answered),
            "questions": n,
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        }

    def _graph(self, method: str, salt: str) -> Graph:
        chat = ChatOpenAI(
            base_url=self._model.base_url,
            model=self._model.name,
            api_key=SecretStr("none"),
            temperature=0,
            timeout=_TIMEOUT,
            max_retries=0,
            extra_body={"cache_salt": salt},
        )
        options: dict[str, Any] = {}
        if method.startswith("injected"):
            options["injection"] = ParametricInjector(self._model, missing="context")
        if method == "injected, short":
            options["prompt"] = WeightsPrompt()
        return create_dynamic_rag(
            chat,
            self._retriever,
            preset="flare" if method == "flare" else "single",
            server=ServerPolicy(continuing="flags"),  # as vLLM does; a probe would be counted
            k=_PASSAGES,
            budgets=self._budgets,
            **options,
        )


def _asked(graph: Graph, row: Mapping[str, Any]) -> dict[str, float]:
    """Ask a question; return its figures, none if it failed."""
    started = time.perf_counter()
    try:
        result = graph.invoke({"question": row["question"]})
    except Exception as error:  # noqa: BLE001 - counted, whatever it is
        note(f"failed: {row['question']!r}: {error!r}")
        return {}
    trace = Trace.from_state(result)
    return {
        "seconds": time.perf_counter() - started,
        "searches": len(trace.retrievals),
        "kept": trace.counts["accepted_tokens"],
        "retried": trace.counts.get("failed_requests", 0),
        "in_weights": float(any(e.get("in_weights") for e in trace.events)),
        "f1": f1(trace.short_answer, row["answers"]),
    }
