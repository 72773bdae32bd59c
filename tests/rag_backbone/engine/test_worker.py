"""Prefill of concurrent prompts: batched, with the same results as alone, and in chunks of bounded length."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch

from rag_backbone.engine import worker as runner
from rag_backbone.engine.attention import AttentionPatch
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import AdapterError
from tests.rag_backbone.busy import forwards_of, held, wait_until, while_busy
from tests.rag_backbone.engine.shift import PackedShiftBackend, Shift, ShiftBackend
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer

MODELS = {
    "llama": tiny_llama,
    "qwen2": tiny_qwen2,
    "qwen2, windows": lambda: tiny_qwen2(use_sliding_window=True, sliding_window=6, max_window_layers=1),
    "gemma3, windows": lambda: tiny_gemma3(sliding_window=6),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture
def engine(model):
    return Engine(model, tiny_tokenizer())


@pytest.fixture
def llama():
    return Engine(tiny_llama(), tiny_tokenizer())


def prompt(i: int, length: int) -> list[int]:
    """Return prompts that share no prefix."""
    return [3 + (97 * i + 31 * n * (i + 1)) % 390 for n in range(length)]


def request(i: int, length: int, tokens: int = 8, **options) -> Request:
    return Request(prompt(i, length), tokens, signals=Signals(entropy=True, attention=i % 2 == 0), **options)


def at_once(engine, requests):
    return [f.result() for f in while_busy(engine, *[lambda r=r: engine.generate(r) for r in requests])]


def alike(found, expected):
    assert [g.token_ids for g in found] == [g.token_ids for g in expected]
    for a, b in zip(expected, found, strict=True):
        assert (a.text, a.finish_reason) == (b.text, b.finish_reason)
        assert [s.entropy for s in b.steps] == pytest.approx([s.entropy for s in a.steps], abs=1e-3)
        for x, y in zip(a.steps, b.steps, strict=True):
            assert y.logprob == pytest.approx(x.logprob, abs=1e-3)
            if x.attention is not None:
                assert x.attention.shape == y.attention.shape
                assert (x.attention - y.attention).abs().max() < 1e-3


def alone(model, requests):
    return [Engine(model, tiny_tokenizer()).generate(r) for r in requests]


# ---------------------------------------------------------------------- together


def test_waiting_prompts_are_prefilled_in_one_forward_pass_with_the_same_results_as_alone(engine, model):
    requests = [request(i, n) for i, n in enumerate([40, 50, 33, 45, 49])]
    expected = alone(model, requests)
    before = engine.counts
    found = at_once(engine, requests)
    alike(found, expected)
    work = engine.counts - before
    # Prefill is a single forward pass, followed by at most as many as each needs alone.
    assert work.forwards <= 1 + sum(g.counts.forwards - 1 for g in expected)
    assert work.forward_tokens == sum(g.counts.forward_tokens for g in expected)
    assert [g.counts for g in found] == [g.counts for g in expected]


def test_only_uncached_tokens_count_for_a_chunk_and_are_computed(engine, model):
    fixed, requests = prompt(9, 60), []
    for i, n in enumerate([20, 64, 24]):  # as long as the others only if its prefix is cached
        ids = (fixed if n == 64 else []) + prompt(i, n if n != 64 else 22)
        requests.append(Request(ids, 6, signals=Signals(entropy=True, attention=True)))
    expected = alone(model, requests)
    engine.generate(Request(fixed, 1))
    forwards = forwards_of(engine)
    alike(at_once(engine, requests), expected)
    assert forwards[0] == 20 + 22 + 24


def test_continued_texts_share_the_forward_pass_of_their_last_token(llama):
    texts = [prompt(i, 30) for i in range(4)]
    begun = [t + llama.generate(Request(t, 5)).token_ids for t in texts]
    expected = alone(llama.model, [Request(ids, 6) for ids in begun])
    forwards = forwards_of(llama)
    found = at_once(llama, [Request(ids, 6) for ids in begun])
    assert [g.token_ids for g in found] == [g.token_ids for g in expected]
    assert forwards[0] == 4


def test_generate_batch_prefills_short_prompts_in_one_batch(engine, model):
    requests = [request(i, n) for i, n in enumerate([40, 150, 50, 160, 34])]
    expected = alone(model, requests)
    forwards = forwards_of(engine)
    alike(engine.generate_batch(requests), expected)
    assert [n for n in forwards if n > 5] == [40 + 150 + 50, 160 + 34]


def test_a_generation_alone_does_not_try_out_batching(llama):
    forwards = forwards_of(llama, tried_out=False)
    made = [llama.generate(Request(prompt(i, 20), 6)) for i in range(2)]
    assert not llama._runner.call.switch.tried_out
    assert forwards == [n for one in made for n in [20] + [1] * (one.counts.forwards - 1)]


def test_prefill_is_shared_in_half_precision_too():
    model = tiny_llama().to(torch.bfloat16)
    engine = Engine(model, tiny_tokenizer())
    requests = [Request(prompt(i, n), 4, signals=Signals(attention=True)) for i, n in enumerate([40, 50, 1, 45])]
    forwards = forwards_of(engine)
    found = at_once(engine, requests)
    assert 136 in forwards
    for r, made in zip(requests, found, strict=True):
        logits = model(input_ids=torch.tensor([[*r.prompt, *made.token_ids]])).logits[0, len(r.prompt) - 1 :].float()
        for row, step in zip(logits, made.steps, strict=False):
            assert abs(step.logprob - row.log_softmax(-1)[step.token_id].item()) < 0.5


# ---------------------------------------------------------------------- apart


def test_a_prefill_chunk_is_bounded_and_the_oldest_prompt_is_always_next(llama):
    """Even if later prompts would fit better."""
    forwards = forwards_of(llama)
    at_once(llama, [request(i, n, 1) for i, n in enumerate([40, 200, 41, 120, 42, 201, 43])])
    assert forwards == [40 + 200, 41 + 120 + 42 + 43, 201]
    assert max(forwards) <= runner._CPU_TURN


@pytest.mark.parametrize("length", [257, 600, 1000])
def test_a_long_prompt_prefilled_in_chunks_gives_the_same_result(engine, model, length, monkeypatch):
    long = request(3, length, 6)
    forwards = forwards_of(engine)
    found = engine.generate(long)
    assert max(forwards) == runner._CPU_TURN
    assert sum(n for n in forwards if n > 1) >= length - 1
    monkeypatch.setattr(runner, "_CPU_TURN", 5000)
    alike([found], alone(model, [long]))


def test_decoding_continues_between_the_chunks_of_a_long_prompt(llama):
    decoding, long = llama.stream(request(0, 30, 12)), request(1, 900, 1)
    expected = alone(llama.model, [request(0, 30, 12), long])
    next(decoding)
    forwards = forwards_of(llama)
    with ThreadPoolExecutor(2) as pool:
        with held(llama) as inbox:
            read = pool.submit(llama.generate, long)
            wait_until(lambda: inbox.qsize() == 1)
            steps = pool.submit(list, decoding)
            wait_until(lambda: inbox.qsize() == 2)
        alike([read.result(60)], expected[1:])
        steps.result(60)
    assert decoding.generation().token_ids == expected[0].token_ids
    parts = [i for i, n in enumerate(forwards) if n > 1]
    assert len(parts) == 4
    between = [forwards[a + 1 : b] for a, b in pairwise(parts)]
    # A caller whose thread wakes late, on a busy machine, misses a turn.
    assert all(tokens in ([1], []) for tokens in between)
    assert [1] in between


def test_a_prompt_waits_for_a_shared_prefix_that_is_being_computed(engine, model):
    fixed = prompt(9, 80)
    requests = [Request(fixed + prompt(i, 20 + i), 6, signals=Signals(entropy=True)) for i in range(6)]
    expected = alone(model, requests)
    forwards = forwards_of(engine)
    alike(at_once(engine, requests), expected)
    assert forwards[0] == 80 + 20
    assert [n for n in forwards if n > 6][1:] == [sum(20 + i for i in range(1, 6))]


def test_hidden_states_and_unsupported_models_are_not_batched(llama, monkeypatch):
    requests = [Request(prompt(i, 40), 3, signals=Signals(hidden_state=1)) for i in range(3)]
    forwards = forwards_of(llama)
    states = [g.steps[0].hidden_state for g in at_once(llama, requests)]
    assert [n for n in forwards if n > 3] == [40] * 3
    for r, state in zip(requests, states, strict=True):
        assert torch.allclose(state, llama.generate(r).steps[0].hidden_state, atol=1e-3)
    monkeypatch.setattr(AttentionPatch, "_rows_match", lambda self, known, new: not new[0][1:])
    other = Engine(tiny_llama(), tiny_tokenizer())
    forwards = forwards_of(other)
    at_once(other, [request(i, 40) for i in range(3)])
    assert forwards[-1] < 40
    assert [n for n in forwards if n >= 40] == [40] * 3
    other.generate_batch([request(i, 30) for i in range(3)])
    assert max(forwards) == 40


# ---------------------------------------------------------------------- adapters


@pytest.mark.parametrize(("backend", "buckets"), [(ShiftBackend, [40 + 42, 41 + 43]), (PackedShiftBackend, [166])])
def test_prompts_with_different_adapters_share_prefill_if_the_backend_supports_it(backend, buckets):
    model = tiny_llama()
    sets = [Shift(0.5), None, Shift(0.5), None]
    requests = [request(i, 40 + i, adapters=s) for i, s in enumerate(sets)]
    expected = []
    for r in requests:
        fresh = Engine(model, tiny_tokenizer())
        fresh.attach(backend(model))
        expected.append(fresh.generate(r))
    for run in (at_once, Engine.generate_batch):
        engine = Engine(model, tiny_tokenizer())
        engine.attach(backend(model))
        forwards = forwards_of(engine)
        alike(run(engine, requests), expected)
        del model.forward
        assert [n for n in forwards if n > 4] == buckets


# ---------------------------------------------------------------------- what goes wrong


class Fragile(PackedShiftBackend):
    """A backend that has lost one adapter."""

    def activate(self, rows):
        self._check(rows)
        return super().activate(rows)

    def activate_packed(self, rows, lengths):
        self._check(rows)
        return super().activate_packed(rows, lengths)

    def _check(self, rows):
        if any(r is not None and r.value == 13.0 for r in rows):
            raise AdapterError("no such document")


def test_a_missing_adapter_ends_only_its_own_generation(llama):
    llama.attach(Fragile(llama.model))
    requests = [request(i, 40 + i, adapters=s) for i, s in enumerate([None, Shift(13.0), Shift(0.5)])]
    expected = [llama.generate(r) for r in (requests[0], requests[2])]
    llama.prefixes.clear()
    for order in ([0, 1, 2], [1, 2, 0]):
        futures = while_busy(llama, *[lambda r=requests[i]: llama.generate(r) for i in order])
        by_request = dict(zip(order, futures, strict=True))
        assert isinstance(by_request[1].exception(), AdapterError)
        alike([by_request[0].result(), by_request[2].result()], expected)
        llama.prefixes.clear()


def test_a_reader_that_fails_at_its_first_token_does_not_affect_others(llama):
    def refuse(step):
        raise RuntimeError("not this one")

    requests = [request(0, 40), request(1, 41, stop_when=refuse), request(2, 42)]
    expected = alone(llama.model, [requests[0], requests[2]])
    futures = while_busy(llama, *[lambda r=r: llama.generate(r) for r in requests])
    assert str(futures[1].exception()) == "not this one"
    alike([futures[0].result(), futures[2].result()], expected)


@pytest.mark.parametrize("error", [RuntimeError("device lost"), torch.OutOfMemoryError("too many")])
def test_a_failing_forward_pass_leaves_every_sequence_as_it_was(llama, error):
    """A batch that runs out of memory is retried one by one; other errors affect all sequences. No cache is damaged."""
    layer, fixed = llama.model.get_decoder().layers[1], prompt(9, 30)
    requests = [Request(fixed + prompt(i, 40), 5) for i in range(3)]
    expected = alone(llama.model, requests)
    llama.generate(Request(fixed, 1))

    def fail(module, args, output):
        if output.shape[1] > 100:
            raise error

    handle = layer.register_forward_hook(fail)
    futures = while_busy(llama, *[lambda r=r: llama.generate(r) for r in requests])
    handle.remove()
    if isinstance(error, torch.OutOfMemoryError):
        assert [f.result().token_ids for f in futures] == [g.token_ids for g in expected]
    else:
        assert [f.exception() for f in futures] == [error] * 3
    assert [g.token_ids for g in at_once(llama, requests)] == [g.token_ids for g in expected]


def test_a_sequence_cancelled_while_it_waits_is_not_computed(llama):
    streams = [llama.stream(request(i, 40 + i)) for i in range(3)]
    expected = alone(llama.model, [request(0, 40)])
    gate, forwards = threading.Event(), forwards_of(llama)

    def read(stream):
        return list(stream)

    def cancel():
        for stream in streams[1:]:
            stream.close()
        gate.set()

    assert llama.shares_steps
    with ThreadPoolExecutor(4) as pool:
        with held(llama) as inbox:
            futures = []
            for stream in streams:
                futures.append(pool.submit(read, stream))
                wait_until(lambda: inbox.qsize() == len(futures))
            pool.submit(cancel)
            gate.wait(10)
        assert [s.token_id for s in futures[0].result(60)] == expected[0].token_ids
        assert [f.result(60) for f in futures[1:]] == [[], []]
    assert max(forwards) == 40
    assert [s.finish_reason for s in streams[1:]] == ["cancelled"] * 2
