"""Streams that are read in part, left early, or read in turn."""

import pytest

from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from tests.rag_backbone.engine.references import PROMPT, eager, ids_of


def test_a_stream_stops_computing_when_its_reader_leaves(engine):
    before = engine.counts
    with engine.stream(Request(PROMPT, 50)) as stream:
        for step in stream:
            if step.index == 3:
                break
    assert stream.finish_reason == "cancelled"
    assert (engine.counts - before).forwards == 4
    assert len(stream.generation().steps) == 4


def test_interleaved_streams_do_not_affect_each_other(engine):
    alone = [engine.generate(Request(p, 15)).token_ids for p in (PROMPT, "In 1954 the river rose")]
    a, b = (engine.stream(Request(p, 15)) for p in (PROMPT, "In 1954 the river rose"))
    found = [[], []]
    for pair in zip(a, b, strict=False):
        for tokens, step in zip(found, pair, strict=True):
            tokens.append(step.token_id)
    assert all(tokens == whole[: len(tokens)] for tokens, whole in zip(found, alone, strict=True))


def test_an_abandoned_stream_does_not_block_others(engine):
    abandoned = engine.stream(Request(PROMPT, 50))
    next(abandoned)
    assert engine.generate(Request("In 1954", 5)).steps


@pytest.mark.parametrize("stop_early", [True, False])
def test_the_closing_row_is_the_attention_of_the_last_token(engine, model, stop_early):
    ids = ids_of(PROMPT)
    with engine.stream(Request(ids, 12, signals=Signals(attention=True))) as stream:
        steps = [next(stream) for _ in range(5)] if stop_early else list(stream)
    row = stream.closing_attention()
    given = [s.token_id for s in stream.generation().steps]
    assert len(given) >= len(steps)
    expected = eager(model, ids + given).attentions[-1][0, :, -1]
    assert (row - expected).abs().max() < 1e-4


def test_the_closing_row_needs_a_token(engine):
    with engine.stream(Request(PROMPT, 3)) as stream:
        pass
    assert list(stream) == []
    assert stream.finish_reason == "cancelled"
    with pytest.raises(ValueError, match="no token was generated"):
        stream.closing_attention()


def test_a_stream_that_was_closed_keeps_its_tokens(tiny_lm):
    stream = tiny_lm.engine.stream(Request([1, 50, 60], 10))
    assert stream.finish_reason is None
    steps = [next(stream), next(stream)]
    stream.close()
    stream.close()
    assert stream.prompt_ids == [1, 50, 60]
    assert list(stream.generation().steps) == steps
    assert stream.generation().finish_reason == "cancelled"
    assert next(stream, None) is None


def test_a_generation_is_the_same_as_the_stream_of_its_steps(tiny_lm):
    request = Request([1, 50, 60], 6)
    with tiny_lm.engine.stream(request) as stream:
        steps = list(stream)
    made = tiny_lm.engine.generate(request)
    assert [step.token_id for step in steps] == made.token_ids
    assert stream.finish_reason == made.finish_reason


def test_an_error_in_the_loop_ends_the_stream(tiny_lm):
    with pytest.raises(RuntimeError, match="reader"), tiny_lm.engine.stream(Request([1, 50, 60], 10)) as stream:
        next(stream)
        raise RuntimeError("reader")
    assert stream.finish_reason == "cancelled"
    assert len(stream.generation().steps) == 1
