"""One generation in progress: which tokens are still to be fed, and where it ends."""

import pytest
import torch

from rag_backbone.engine.kv_cache import SequenceCache
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sequence import SequenceState
from rag_backbone.engine.signals import NextTokens, Signals
from tests.rag_backbone.engine.references import ids_of
from tests.tiny import tiny_llama, tiny_tokenizer

PROMPTS = ["Who built the bridge?", "The river rose", "Nobody came back."]
END = 2


def state(limit: int = 8, **options) -> SequenceState:
    request = Request([5, 6, 7], limit, **options)
    return SequenceState(request, [5, 6, 7], limit, tiny_tokenizer(), frozenset({END}), torch.device("cpu"))


def choose(row: SequenceState, token: int) -> None:
    """Let the model choose `token`, with probability one half."""
    logits = torch.full((400,), -torch.inf)
    logits[[token, 399]] = 0.0
    row.choose(logits, NextTokens.of(logits[None], entropy=True).rows()[0], None, None)


def push(row: SequenceState, *tokens: int) -> None:
    for token in tokens:
        choose(row, token)
        row.take()


def test_sequences_in_a_batch_end_where_their_callers_say_and_the_others_continue(tiny_lm):
    whole = tiny_lm.engine.generate_batch([Request(ids_of(p), 20) for p in PROMPTS])
    seen = [[], [], []]

    def after(row, count):
        def stop(step):
            seen[row].append(step)
            return len(seen[row]) == count

        return stop

    made = tiny_lm.engine.generate_batch(
        [
            Request(ids_of(p), 20, stop_when=after(i, n))
            for i, (p, n) in enumerate(zip(PROMPTS, (1, 5, 99), strict=True))
        ]
    )
    assert [len(g.steps) for g in made[:2]] == [1, 5]
    assert [g.finish_reason for g in made[:2]] == ["cancelled", "cancelled"]
    assert made[2].token_ids == whole[2].token_ids
    for part, full, steps in zip(made, whole, seen, strict=True):
        assert part.token_ids == full.token_ids[: len(part.steps)]
        assert steps == list(part.steps)


def test_stop_when_sees_only_final_steps_and_no_step_follows_the_end(tiny_lm):
    free = tiny_lm.engine.generate(Request(ids_of(PROMPTS[0]), 20))
    third = free.steps[2].text
    assert third
    # The stop string begins with a token's text, so that token is held back until the next one.
    undecided = third + "\x00"
    request = Request(ids_of(PROMPTS[0]), 20, stop=(undecided,), stop_when=lambda step: step.index == 2)
    made = tiny_lm.engine.generate(request)
    assert made.token_ids == free.token_ids[:3]
    assert made.finish_reason == "cancelled"
    assert made.stop_string is None


def test_the_tokens_to_feed_are_those_that_the_cache_does_not_cover():
    row = state()
    row.sequence = SequenceCache.empty(tiny_llama().config)
    assert row.unfed() == [5, 6, 7]
    row.sequence.ids = [5]
    assert row.unfed() == [6, 7]
    assert not row.decodes
    push(row, 65, 66)
    assert row.unfed() == [6, 7, 65, 66]
    row.sequence.ids = [5, 6, 7, 65]
    assert row.unfed() == [66]
    assert row.decodes


def test_an_end_token_ends_the_generation_and_is_not_part_of_it():
    row = state()
    push(row, 65, END, 66)
    assert row.generation().token_ids == [65]
    assert row.finish_reason == "eos"
    assert row.counts.generated_tokens == 1


def test_a_generation_ends_at_its_limit():
    row = state(limit=2)
    push(row, 65, 66, 67)
    assert (row.generated, row.finish_reason) == ([65, 66], "length")


def test_a_token_chosen_before_a_cancellation_is_dropped():
    row = state()
    push(row, 65)
    choose(row, 66)
    row.cancel()
    row.take()
    row.cancel()
    assert (row.generation().token_ids, row.finish_reason) == ([65], "cancelled")


def test_steps_held_back_for_a_stop_string_are_returned_when_it_cannot_occur_any_more():
    first = tiny_tokenizer().decode([65])
    row = state(stop=[first + "\x00"])
    push(row, 65)
    assert not row.steps
    push(row, END)
    assert (row.generation().text, row.generation().stop_string) == (first, None)


def test_only_requested_signals_are_reported():
    bare, rich = state(), state(signals=Signals(entropy=True, top_logprobs=2, tokens=(399, 65)))
    for row in (bare, rich):
        push(row, 65)
    half = pytest.approx(-0.6931472)
    assert bare.steps[0].logprob == rich.steps[0].logprob == half
    assert (bare.steps[0].entropy, bare.steps[0].top_logprobs, bare.steps[0].token_logprobs) == (None, (), ())
    assert rich.steps[0].entropy == pytest.approx(0.6931472)
    assert sorted(token for token, _ in rich.steps[0].top_logprobs) == [65, 399]
    assert rich.steps[0].token_logprobs == (half, half)
