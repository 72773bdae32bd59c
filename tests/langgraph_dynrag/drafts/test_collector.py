"""A draft is collected from the chunks of a stream."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk

from langgraph_dynrag.drafts.collector import Collector, rows_from_scores
from langgraph_dynrag.drafts.draft import Draft, Unit
from langgraph_dynrag.drafts.stop_at_unit import StopAtUnit
from tests.langgraph_dynrag.recorded import causal_attention, rows_of, task_of

LOGPROB = frozenset({"logprob"})


def chunk(*tokens, text=None, finish=None, own=None, **fields):
    """Return a chunk of tokens with a log-probability of one half each, and their text."""
    entries = [{"token": t, "logprob": math.log(0.5), "top_logprobs": []} for t in tokens]
    metadata = {"logprobs": {"content": entries}} if entries else {}
    metadata |= {"finish_reason": finish} if finish else {}
    metadata |= {"dynprag": own} if own else {}
    return AIMessageChunk("".join(tokens) if text is None else text, response_metadata=metadata, **fields)


def collected(task, *chunks, watched=True, **options):
    told = []
    collector = Collector(task, StopAtUnit(task), lambda *token: told.append(token), watched=watched, **options)
    for part in chunks:
        collector.push(part)
    return collector.result(), told


def test_tokens_of_several_chunks_form_one_draft_with_their_signals():
    result, told = collected(task_of(needs=LOGPROB), chunk("It", " was"), chunk(" Wray"), chunk(text="", finish="stop"))
    assert result.draft.pieces == ("It", " was", " Wray")
    assert result.draft.logprobs == pytest.approx((math.log(0.5),) * 3)
    assert (result.draft.entropies, result.draft.token_ids, result.draft.ended) == (None, None, "end")
    assert [piece for piece, _, _ in told] == ["It", " was", " Wray"]
    assert (result.problem, result.reasoning, result.repeated) == (None, "", "")


@given(st.lists(st.sampled_from(["It", " was", " Wray", ".", " é", "\n"]), max_size=8), st.data())
def test_a_draft_does_not_depend_on_how_the_stream_is_cut_into_chunks(pieces, data):
    task = task_of(needs=LOGPROB, limit=99)
    whole, _ = collected(task, chunk(*pieces))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pieces)), max_size=3)))
    parts = [pieces[a:b] for a, b in zip([0, *cuts], [*cuts, len(pieces)], strict=True)]
    assert collected(task, *(chunk(*part) for part in parts))[0].draft == whole.draft


def test_text_without_reported_tokens_counts_as_certain_and_is_counted():
    result, _ = collected(task_of(needs=LOGPROB), AIMessageChunk("It was"), AIMessageChunk(" Wray"))
    assert result.draft.text == "It was Wray"
    assert result.draft.logprobs == (0.0, 0.0)
    assert result.cost == {"tokens_without_logprobs": 2}
    # If no signal is needed, nothing is missing.
    silent, _ = collected(task_of(), AIMessageChunk("It was"))
    assert (silent.draft.logprobs, silent.cost) == ((), {})


def test_a_watched_draft_ends_with_its_unit():
    task = task_of(unit=Unit("tokens", 2), needs=LOGPROB, opens=False)
    collector = Collector(task, rule := StopAtUnit(task), None, watched=True)
    collector.push(chunk("It"))
    assert rule.ended is None
    collector.push(chunk(" was"))
    assert rule.ended == "unit"
    assert collector.result().draft.ended == "unit"


def test_a_draft_that_may_turn_out_to_be_reasoning_is_read_to_its_end():
    task = task_of(unit=Unit("tokens", 2), needs=LOGPROB)
    collector = Collector(task, rule := StopAtUnit(task), None, watched=True)
    collector.push(chunk("It", " was", " Wray"))
    assert rule.ended is None
    assert collector.result().draft.text == "It was Wray"


def test_a_draft_beyond_its_limit_is_cut():
    result, _ = collected(task_of(limit=2, needs=LOGPROB, opens=False), chunk("a", " b", " c"))
    assert (result.draft.pieces, result.draft.ended) == (("a", " b"), "limit")


def test_text_after_the_mark_of_a_unit_is_cut_even_if_it_arrives_at_once():
    task = task_of(unit=Unit("until", until="</s>"))
    result, _ = collected(task, AIMessageChunk("Hm <s>a</s> and made-up results"))
    assert (result.draft.text, result.draft.ended) == ("Hm <s>a</s>", "unit")


def test_carried_tokens_come_first():
    carried = Draft(("It",), (-0.3,), token_ids=None)
    result, _ = collected(task_of(needs=LOGPROB, carried=carried), chunk(" was"))
    assert (result.draft.text, result.draft.logprobs[0]) == ("It was", -0.3)


@pytest.mark.parametrize(
    ("chunks", "problem"),
    [
        ([], "no text"),
        ([chunk(text="", finish="length")], "cut off before any text"),
        ([chunk("<think>", "Hm", "</think>")], "only reasoning"),
        ([chunk("\n", " ")], "no text"),
    ],
)
def test_a_reply_without_text_says_why(chunks, problem):
    result, _ = collected(task_of(needs=LOGPROB, reasoning_tokens=50), *chunks)
    assert result.problem == problem


def test_reasoning_is_kept_apart_and_counted():
    chunks = chunk("<think>", "Hm", "</think>"), chunk("It", " was")
    result, _ = collected(task_of(needs=LOGPROB, reasoning_tokens=50), *chunks)
    assert (result.draft.text, result.reasoning, result.cost["reasoning_tokens"]) == ("It was", "Hm", 3)
    apart = AIMessageChunk("", additional_kwargs={"reasoning_content": "Hm"})
    result, _ = collected(task_of(needs=LOGPROB, reasoning_tokens=50), apart, chunk("It", " was"))
    assert (result.draft.text, result.reasoning) == ("It was", "Hm")
    assert result.cost["reasoning_tokens"] > 0


def test_the_cost_that_the_stream_reports_is_passed_on():
    usage = {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11}
    last = chunk(text="", own={"forward_tokens": 3, "cached_tokens": 8}, usage_metadata=usage)
    assert collected(task_of(), chunk("It"), last)[0].cost == {
        "prompt_tokens": 9,
        "forward_tokens": 3,
        "cached_tokens": 8,
    }


def test_token_ids_are_kept_if_every_token_has_one():
    task = task_of(needs=LOGPROB)
    result, _ = collected(task, chunk("It", " was", own={"token_ids": [4, 5]}), watched=False)
    assert result.draft.token_ids == (4, 5)
    mixed, _ = collected(task, chunk("It", own={"token_ids": [4]}), chunk(" was"), watched=False)
    assert mixed.draft.token_ids is None


def test_the_finish_reason_is_known_once_the_stream_ends():
    collector = Collector(task_of(), StopAtUnit(task_of()), None)
    collector.push(chunk("It"))
    assert collector.finish_reason is None
    collector.push(chunk(text="", finish="length"))
    assert collector.finish_reason == "length"
    assert collector.result().draft.ended == "limit"


def test_rows_of_a_scored_draft_equal_those_recorded_while_decoding():
    prompt, tokens = 3, 4
    full = causal_attention(np.random.default_rng(0), heads=2, length=prompt + tokens)
    found, expected = rows_from_scores(full[:, prompt - 1 :, :], prompt), rows_of(full, prompt)
    assert found.start == expected.start
    for a, b in zip((*found.mean, *found.heads), (*expected.mean, *expected.heads), strict=True):
        assert np.allclose(a, b)
