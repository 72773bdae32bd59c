"""Recorded signals for tests of the formulas: invented, but shaped like those of an engine."""

import math
import re
from dataclasses import replace

import numpy as np

from langgraph_dynrag.drafts.draft import AttentionRows, Context, Draft, DraftView, Unit
from langgraph_dynrag.drafts.sampled_ends import SampledEnds
from langgraph_dynrag.drafts.tasks import DraftTask

QUESTION = "Who built the bridge in the capital?"


def random_draft(rng: np.random.Generator, pieces: list[str]) -> Draft:
    n = len(pieces)
    return Draft(
        tuple(pieces),
        tuple(float(x) for x in -rng.exponential(0.7, n)),
        tuple(float(x) for x in rng.gamma(2.0, 0.8, n)),
        tuple(range(n)),
    )


def causal_attention(rng: np.random.Generator, heads: int, length: int) -> np.ndarray:
    """Return attention of shape (heads, length, length), whose rows sum to 1 and are causal."""
    scores = rng.normal(0, 2, (heads, length, length))
    scores[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def rows_of(full: np.ndarray, start: int) -> AttentionRows:
    """Return the rows of a draft that begins at `start`, taken from the whole matrix."""
    n = full.shape[1] - start
    return AttentionRows(
        start,
        tuple(full[:, start + t - 1, : start + t].mean(0) for t in range(n + 1)),
        tuple(full[:, start + t - 1, start : start + t] for t in range(n + 1)),
    )


def view_of(draft: Draft, full: np.ndarray, question: list[str], answer: list[str], padding: int = 4) -> DraftView:
    """Return a view whose prompt is `padding` other tokens, the question's, two more, and the accepted answer's."""
    start = padding + len(question) + 2 + len(answer)
    context = Context(tuple(question), tuple(range(padding, padding + len(question))), tuple(answer))
    return DraftView(
        question="".join(question).strip(),
        accepted="".join(answer),
        draft=draft,
        judged=len(draft),
        attention=rows_of(full, start),
        context=context,
    )


def view(text="It was Joan.", probabilities=None, accepted="", question=QUESTION, **changes):
    pieces = _pieces(text)
    logprobs = tuple(math.log((probabilities or {}).get(p.strip(), 0.95)) for p in pieces)
    draft = Draft(tuple(pieces), logprobs)
    return DraftView(question, accepted, draft, len(draft), **changes)


def _pieces(text):
    return re.findall(r"\s*\w+|\s*[^\w\s]", text)


def sampled(states, texts=None, **cost):
    return SampledEnds(np.asarray(states, float), tuple(texts or ["It was."] * len(states)), cost)


def task_of(question="Who?", phrase=None, **changes):
    """Return a task whose draft ends with the model's answer or after nine tokens."""
    task = DraftTask(
        question=question,
        messages=(),
        accepted="",
        accepted_ids=None,
        carried=Draft(),
        carried_attention=None,
        unit=Unit("all"),
        limit=9,
        needs=frozenset(),
        answer_phrase=phrase,
    )
    return replace(task, **changes)
