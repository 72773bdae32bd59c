"""Log-probabilities of named tokens at every step, and sequences that end where their caller says."""

import pytest
import torch

from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import ConfigurationError
from tests.tiny import tiny_llama, tiny_tokenizer

PROMPTS = ["Who built the bridge?", "The river rose", "Nobody came back."]


@pytest.fixture(scope="module")
def engine():
    return Engine(tiny_llama(), tiny_tokenizer())


def ids_of(text):
    return tiny_tokenizer()(text).input_ids


def test_named_tokens_have_the_probabilities_of_a_forward_pass_over_the_whole_text(engine):
    named = (7, 250, 2, 31)
    ids = ids_of(PROMPTS[0])
    made = engine.generate(Request(ids, 9, signals=Signals(tokens=named, entropy=True)))
    with torch.inference_mode():
        logits = engine.model(torch.tensor([ids + made.token_ids])).logits[0].float()
    expected = torch.log_softmax(logits[len(ids) - 1 :], -1)
    for t, step in enumerate(made.steps):
        assert step.token_logprobs == pytest.approx(expected[t, list(named)].tolist(), abs=1e-4)
    assert engine.generate(Request(ids, 3)).steps[0].token_logprobs == ()


def test_a_bias_does_not_change_what_is_reported(engine):
    ids = ids_of(PROMPTS[1])
    plain, biased = (
        engine.generate(Request(ids, 1, sampling=Sampling(logit_bias=bias), signals=Signals(tokens=(5, 300)))).steps[0]
        for bias in ({}, {5: float("-inf"), 300: 40.0})
    )
    assert biased.token_id == 300 != plain.token_id
    assert biased.token_logprobs == pytest.approx(plain.token_logprobs, abs=1e-5)


def test_negative_ids_are_refused():
    with pytest.raises(ConfigurationError, match="tokens contains -1"):
        Signals(tokens=(4, -1))


def test_sequences_in_a_batch_end_where_their_callers_say_and_the_others_continue(engine):
    whole = engine.generate_batch([Request(ids_of(p), 20) for p in PROMPTS])
    seen = [[], [], []]

    def after(row, count):
        def stop(step):
            seen[row].append(step)
            return len(seen[row]) == count

        return stop

    made = engine.generate_batch(
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


def test_stop_when_sees_only_final_steps_and_no_step_follows_the_end(engine):
    free = engine.generate(Request(ids_of(PROMPTS[0]), 20))
    third = free.steps[2].text
    assert third
    # The stop string begins with a token's text, so that token is held back until the next one.
    undecided = third + "\x00"
    made = engine.generate(Request(ids_of(PROMPTS[0]), 20, stop=(undecided,), stop_when=lambda step: step.index == 2))
    assert made.token_ids == free.token_ids[:3]
    assert made.finish_reason == "cancelled"
    assert made.stop_string is None
