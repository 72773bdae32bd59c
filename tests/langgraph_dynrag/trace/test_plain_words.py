"""Why a run searched and ended, in plain words."""

import pytest

from langgraph_dynrag import Trace
from langgraph_dynrag.trace.draft_trace import DraftTrace, TokenTrace
from langgraph_dynrag.trace.plain_words import fires_below, method, why_ended, why_kept, why_searched
from langgraph_dynrag.trace.rounds import Round, rounds_of

MAYOR = "\u201c<bdi>&lt;mayor&gt;</bdi>\u201d"


def judged(retrieve, score, threshold, *, trigger="RIND", scores=(0.1, 0.9), hits=(), reason="why"):
    tokens = (TokenTrace("The", "discarded"), TokenTrace(" <mayor>", "discarded", fired=retrieve))
    verdict = {
        "type": "verdict",
        "trigger": trigger,
        "retrieve": retrieve,
        "score": score,
        "threshold": threshold,
        "reason": reason,
        "scores": list(scores),
        "hits": list(hits),
    }
    return DraftTrace(tokens, verdict, "unit", (), {})


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        (
            judged(True, 0.165, 0.005, hits=[1]),
            f"Unsure at {MAYOR}: RIND score 0.165, above the threshold 0.005 (1 of 2 tokens).",
        ),
        (
            judged(True, 0.292, 0.8, trigger="token probability", reason="min probability 0.292 < 0.8", hits=[0, 1]),
            f"Unsure at {MAYOR}: lowest probability 0.292, below the threshold 0.8 (2 of 2 tokens).",
        ),
        (
            judged(True, 0.5, 0.8, trigger="token probability", reason="mean probability 0.500 < 0.8", scores=()),
            "Unsure: mean probability 0.5, below the threshold 0.8.",
        ),
        (
            judged(True, -4.17, -6, trigger="self-aware uncertainty", scores=()),
            "Unsure: uncertainty of sampled continuations \u22124.17, above the threshold \u22126.",
        ),
        (
            judged(True, None, None, scores=(), reason="a <sentence> was written"),
            "<bdi>A &lt;sentence&gt; was written</bdi>.",
        ),
    ],
)
def test_the_reason_for_a_search_names_token_score_and_threshold(draft, expected):
    assert why_searched(Round(before=draft)) == expected


def test_the_reason_for_a_search_before_the_answer():
    assert why_searched(Round(reason="initial retrieval")) == "Before anything was written: initial retrieval."


def test_the_reason_for_keeping_a_draft():
    assert why_kept(judged(False, 0.004, 0.005)) == "Kept: RIND score 0.004, below the threshold 0.005."
    assert why_kept(judged(True, 0.2, 0.005)) == ""


@pytest.mark.parametrize(
    ("retrieve", "score", "threshold", "below"),
    [(True, 0.2, 0.8, True), (False, 0.9, 0.8, True), (True, 0.9, 0.8, False), (False, 0.2, 0.8, False)],
)
def test_the_side_on_which_a_trigger_fires_follows_from_its_verdict(retrieve, score, threshold, below):
    assert fires_below({"retrieve": retrieve, "score": score, "threshold": threshold}) is below


DRAFT, END = {"type": "draft", "ended": "unit"}, {"type": "draft", "ended": "end"}
CLOSING, ANSWER = {"type": "closing", "text": " So"}, {"type": "answer"}
TOKENS = {"type": "budget", "which": "tokens", "limit": 64}
SEARCHES = {"type": "budget", "which": "retrievals", "limit": 2}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([END, ANSWER], "the model ended its answer"),
        ([DRAFT, ANSWER], "the answer was complete"),
        ([DRAFT, TOKENS, ANSWER], "the budget of 64 tokens was used up"),
        (
            [DRAFT, TOKENS, CLOSING, END, ANSWER],
            "the budget of 64 tokens was used up; the short answer was then asked for",
        ),
        ([END, CLOSING, DRAFT, ANSWER], "the model ended its answer; the short answer was then asked for"),
        ([SEARCHES, DRAFT, ANSWER], "the answer was complete"),
        ([DRAFT, {"type": "kept", "reason": "no room"}], "an earlier answer was kept"),
        ([{**DRAFT, "node": "generate"}], "not finished; the record stops after generate"),
        ([DRAFT], "not finished"),
    ],
)
def test_why_a_run_ended(events, expected):
    assert why_ended(events, "") == expected


def test_the_method_is_the_preset_with_its_trigger(result):
    trace = Trace.from_state(result)
    assert method(trace.events) == "flare (token probability, threshold 0.8)"
    older = [{k: v for k, v in e.items() if k != "preset"} for e in trace.events]
    assert method(older) == "token probability, threshold 0.8"
    assert method([]) == "not recorded"
    assert len(rounds_of(trace.events, trace.drafts)) == 2
