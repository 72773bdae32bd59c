"""Tests that adapters act from the prompt or from the answer on, against a forward pass over the whole sequence."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_backbone.engine.adapters import LateKey, SequenceAdapters, tokens_in_common
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.eos_states import EOSStatesRequest
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.rag_backbone.busy import while_busy
from tests.rag_backbone.engine.shift import PackedShiftBackend, Shift, ShiftBackend
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer

FAMILIES = {"llama": tiny_llama, "qwen2": tiny_qwen2, "gemma3": tiny_gemma3}
PROMPT = [5 + 7 * i % 390 for i in range(40)]


@pytest.fixture(params=FAMILIES)
def engine(request):
    return attached(FAMILIES[request.param]())


def attached(model) -> Engine:
    engine = Engine(model, tiny_tokenizer())
    engine.attach(PackedShiftBackend(model))
    return engine


def late(value: float) -> Shift:
    return Shift(value, "answer")


def logits_by_definition(model, ids, value, start):
    """One forward pass over all tokens, in which those from `start` on are shifted."""
    values = torch.zeros(1, len(ids), 1)
    values[:, start:] = value
    with PackedShiftBackend(model).shifted(values), torch.inference_mode():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float()


def greedy_by_definition(model, prompt, value, start, tokens):
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(logits_by_definition(model, ids, value, start)[-1].argmax()))
        if ids[-1] == 2:
            return ids[len(prompt) : -1]
    return ids[len(prompt) :]


@pytest.mark.parametrize("answer_from", [None, 25])
def test_a_late_adapter_leaves_the_prompt_to_the_base_model(engine, answer_from):
    start = (answer_from or len(PROMPT)) - 1
    expected = greedy_by_definition(engine.model, PROMPT, 1.5, start, 10)
    request = Request(PROMPT, 10, adapters=late(1.5), answer_from=answer_from)
    assert engine.generate(request).token_ids == expected
    assert engine.generate(request).token_ids == expected  # now from cached keys and values
    assert expected != greedy_by_definition(engine.model, PROMPT, 1.5, 0, 10)
    assert expected != greedy_by_definition(engine.model, PROMPT, 0.0, 0, 10)


def test_all_late_adapters_share_the_prompt_of_the_base_model(engine):
    engine.generate(Request(PROMPT, 4))
    before = engine.counts
    for value in (1.0, 1.5, 2.0):
        found = engine.generate(Request(PROMPT, 1, adapters=late(value)))
        assert found.counts.cached_tokens == len(PROMPT) - 1
    assert (engine.counts - before).forward_tokens == 3
    # and the other way round: what a late adapter's request read serves the base model, up to the answer
    other = [t + 1 for t in PROMPT]
    engine.generate(Request(other, 4, adapters=late(1.0)))
    assert engine.generate(Request(other, 1)).counts.cached_tokens == len(PROMPT) - 1
    assert engine.generate(Request(other, 1, adapters=Shift(1.0))).counts.cached_tokens == 0


def test_concurrent_requests_with_different_adapters_read_the_prompt_once(engine):
    kinds = [None, late(1.0), late(2.0), Shift(1.0), late(1.0), late(-1.5)]
    requests = [Request(PROMPT, 8, signals=Signals(entropy=True, attention=True), adapters=a) for a in kinds]
    alone = [attached(engine.model).generate(r) for r in requests]
    before = engine.counts
    found = [f.result() for f in while_busy(engine, *[lambda r=r: engine.generate(r) for r in requests])]
    assert [g.token_ids for g in found] == [g.token_ids for g in alone]
    for a, b in zip(alone, found, strict=True):
        for one, other in zip(a.steps, b.steps, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            torch.testing.assert_close(one.attention, other.attention, atol=1e-4, rtol=1e-3)
    read = (engine.counts - before).forward_tokens
    if engine.shares_steps:
        assert read < 3 * len(PROMPT) + 8 * len(requests)  # once for the base model, once for the early adapter


def test_a_batch_of_requests_gives_each_its_own_adapters(engine):
    requests = [Request(PROMPT[: 20 + 5 * i], 6, adapters=late(0.5 * i) if i else None) for i in range(4)]
    expected = [
        greedy_by_definition(engine.model, r.prompt, 0.5 * i, len(r.prompt) - 1, 6) for i, r in enumerate(requests)
    ]
    assert [g.token_ids for g in engine.generate_batch(requests)] == expected


@settings(max_examples=25)
@given(st.data())
def test_scores_equal_those_of_the_definition_whatever_is_cached(data):
    model = tiny_llama()
    engine = attached(model)
    for _ in range(data.draw(st.integers(1, 4))):
        length = data.draw(st.integers(1, 30))
        prompt = PROMPT[:length]
        answer = data.draw(st.lists(st.integers(3, 399), min_size=1, max_size=5))
        value = data.draw(st.sampled_from([0.0, 1.0, -2.0]))
        begun = data.draw(st.one_of(st.none(), st.integers(1, length)))
        adapters = late(value) if data.draw(st.booleans()) else Shift(value)
        start = (length if begun is None else begun) - 1 if adapters.acts_from == "answer" else 0
        scored = engine.score(prompt, answer, attention=True, adapters=adapters, answer_from=begun)
        logits = logits_by_definition(model, prompt + answer, value, start)[length - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
        torch.testing.assert_close(scored.logprobs, expected, atol=1e-4, rtol=1e-4)


def test_closing_attention_and_samples_follow_the_same_rule():
    model = tiny_llama()
    engine, fresh = attached(model), attached(model)
    with engine.stream(Request(PROMPT, 3, signals=Signals(attention=True), adapters=late(1.5))) as stream:
        ids = PROMPT + [step.token_id for step in stream]
        row = stream.closing_attention()
    expected = fresh.score(PROMPT, ids[len(PROMPT) :], attention=True, adapters=late(1.5)).attention[:, -1]
    torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-3)
    sampling = Sampling(temperature=1.0, seed=3)
    request = EOSStatesRequest(PROMPT, 1, samples=3, max_new_tokens=4, sampling=sampling, adapters=late(1.5))
    states = engine.end_states(request)
    assert states.token_ids == fresh.end_states(request).token_ids
    assert states.token_ids != fresh.end_states(replace(request, adapters=None)).token_ids


def test_a_backend_for_whole_sequences_refuses_late_adapters():
    engine = Engine(tiny_llama(), tiny_tokenizer())
    engine.attach(ShiftBackend(engine.model))
    with pytest.raises(AdapterError, match="ShiftBackend applies adapters to whole sequences only"):
        engine.generate(Request(PROMPT, 2, adapters=late(1.0)))
    assert engine.generate(Request(PROMPT, 2)).token_ids


@pytest.mark.parametrize("answer_from", [0, 3])
def test_an_answer_begins_within_the_prompt_and_after_at_least_one_token(answer_from):
    engine, told = attached(tiny_llama()), f"answer_from is {answer_from} in a prompt of 2 tokens"
    with pytest.raises(ConfigurationError, match=told):
        engine.generate(Request([5, 6], 2, answer_from=answer_from))
    with pytest.raises(ConfigurationError, match=told):
        engine.score([5, 6], [7], answer_from=answer_from)


def test_parts_of_a_forward_pass():
    own = SequenceAdapters.of(late(1.0), 10)
    assert own.start == 9
    assert [n for _, n in own.parts(12)] == [9, 3]
    assert [(a is None, n) for a, n in own.at(4).parts(3)] == [(True, 3)]
    assert [(a is None, n) for a, n in own.at(9).parts(3)] == [(False, 3)]
    assert SequenceAdapters.of(Shift(1.0), 10).start == 0
    assert SequenceAdapters.of(late(1.0), 10, answer_from=4).start == 3


def test_keys_share_what_the_base_model_computed():
    one, other = LateKey("a", 5), LateKey("b", 8)
    assert tokens_in_common(one, other) == 5
    assert tokens_in_common(one, None) == 5
    assert tokens_in_common(one, one) == float("inf")
    assert tokens_in_common("a", None) == 0
    assert tokens_in_common(None, None) == float("inf")
