"""Prompts that wait at the same time: prefilled together, each as if it were alone, and nobody for long."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rag_backbone.attention import AttentionSwitch
from rag_backbone.engine import Engine
from rag_backbone.errors import AdapterError
from rag_backbone.prefill import _MAX_TOKENS, _SHORT, companions, longest_shared
from rag_backbone.requests import Request
from rag_backbone.signals import Signals
from tests.rag_backbone.test_engine import Shift, ShiftBackend
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


@pytest.fixture(autouse=True)
def nobody_rides(monkeypatch):
    """Forwards are of prompts alone, or of single tokens; see `test_riders`."""
    monkeypatch.setattr(Engine, "riders", lambda *_: [])


def prompt(i: int, length: int) -> list[int]:
    """Prompts that have nothing in common."""
    return [3 + (97 * i + 31 * n * (i + 1)) % 390 for n in range(length)]


def request(i: int, length: int, tokens: int = 8, **options) -> Request:
    return Request(prompt(i, length), tokens, signals=Signals(entropy=True, attention=i % 2 == 0), **options)


def while_busy(engine, *calls):
    """Make calls in threads of their own that all come, in this order, while the engine is busy; their futures."""
    assert engine.shares_steps  # what the model supports is found out before
    with ThreadPoolExecutor(len(calls)) as pool:
        with engine._lock:
            futures = []
            for call in calls:
                futures.append(pool.submit(call))
                end = time.monotonic() + 30
                while len(engine._lock._waiting) < len(futures):
                    assert time.monotonic() < end
                    time.sleep(0.001)
        for future in futures:
            future.exception(60)
    return futures


def forwards_of(engine, *, tried_out=True):
    """The tokens of every forward from now on."""
    assert not tried_out or engine.shares_steps
    found, original = [], engine.model.forward

    def forward(*args, **arguments):
        found.append(arguments["input_ids"].numel())
        return original(*args, **arguments)

    engine.model.forward = forward
    return found


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


def test_prompts_that_wait_are_prefilled_in_one_forward_and_each_is_what_it_is_alone(engine, model):
    requests = [request(i, n) for i, n in enumerate([40, 50, 33, 45, 49])]
    expected = alone(model, requests)
    before = engine.counts
    found = at_once(engine, requests)
    alike(found, expected)
    work = engine.counts - before
    # Prefill is a single forward; then at most what each makes alone.
    assert work.forwards <= 1 + sum(g.counts.forwards - 1 for g in expected)
    assert work.forward_tokens == sum(g.counts.forward_tokens for g in expected)
    assert [g.counts for g in found] == [g.counts for g in expected]


def test_only_what_is_unknown_counts_for_a_bucket_and_enters_the_forward(engine, model):
    fixed, requests = prompt(9, 60), []
    for i, n in enumerate([20, 64, 24]):  # as long as the others only where its beginning is known
        ids = (fixed if n == 64 else []) + prompt(i, n if n != 64 else 22)
        requests.append(Request(ids, 6, signals=Signals(entropy=True, attention=True)))
    expected = alone(model, requests)
    engine.generate(Request(fixed, 1))
    forwards = forwards_of(engine)
    alike(at_once(engine, requests), expected)
    assert forwards[0] == 20 + 22 + 24


def test_texts_that_are_continued_share_the_forward_of_their_last_token(llama):
    texts = [prompt(i, 30) for i in range(4)]
    begun = [t + llama.generate(Request(t, 5)).token_ids for t in texts]
    expected = alone(llama.model, [Request(ids, 6) for ids in begun])
    forwards = forwards_of(llama)
    found = at_once(llama, [Request(ids, 6) for ids in begun])
    assert [g.token_ids for g in found] == [g.token_ids for g in expected]
    assert forwards[0] == 4


def test_generate_batch_prefills_in_buckets(engine, model):
    requests = [request(i, n) for i, n in enumerate([40, 150, 50, 160, 34])]
    expected = alone(model, requests)
    forwards = forwards_of(engine)
    alike(engine.generate_batch(requests), expected)
    assert [n for n in forwards if n > 5] == [40 + 50 + 34, 150 + 160]


def test_a_generation_that_runs_alone_tries_out_nothing_that_only_rows_need(llama):
    forwards = forwards_of(llama, tried_out=False)
    made = [llama.generate(Request(prompt(i, 20), 6)) for i in range(2)]
    assert not llama._call.switch.tried_out
    recognition, *others = forwards
    assert recognition == 5
    assert others == [n for one in made for n in [20] + [1] * (one.counts.forwards - 1)]


def test_half_precision_shares_prefills_too():
    model = tiny_llama().to(torch.bfloat16)
    engine = Engine(model, tiny_tokenizer())
    requests = [Request(prompt(i, n), 4, signals=Signals(attention=True)) for i, n in enumerate([40, 50, 1, 45])]
    forwards = forwards_of(engine)
    found = at_once(engine, requests)
    assert 135 in forwards
    for r, made in zip(requests, found, strict=True):
        logits = model(input_ids=torch.tensor([[*r.prompt, *made.token_ids]])).logits[0, len(r.prompt) - 1 :].float()
        for row, step in zip(logits, made.steps, strict=False):
            assert abs(step.logprob - row.log_softmax(-1)[step.token_id].item()) < 0.5


# ---------------------------------------------------------------------- apart


class Nothing:
    """A prefix cache that knows nothing."""

    def known(self, key, ids):
        return 0


def chosen(engine, lengths, *, room=15, device="cuda"):
    rows = [engine._admit(request(i, n, 1)) for i, n in enumerate(lengths)]
    longest = longest_shared(torch.device(device))
    found = companions(rows[0], rows[1:], Nothing(), room=room, longest=longest, mixed=True)
    return [len(row.prompt_ids) for row in found]


def test_a_bucket_holds_what_is_of_similar_length(llama):
    assert chosen(llama, [100, 151, 150, 67, 149, 99, 300]) == [150, 149]  # 67 to 150 is too far
    assert chosen(llama, [100, 67, 101, 99]) == [67, 99]
    assert chosen(llama, [3, _SHORT, 1, _SHORT + 1, 2]) == [_SHORT, 1, 2]
    assert chosen(llama, [100, 101, 102, 103], room=2) == [101, 102]


def test_a_bucket_has_an_end(llama):
    assert sum(chosen(llama, [600] * 9)) + 600 <= _MAX_TOKENS
    assert chosen(llama, [1900, 1901]) == []


def test_where_nothing_is_gained_long_prompts_stay_alone(llama):
    assert chosen(llama, [300, 320, 390, 410]) == [320, 390, 410]
    assert chosen(llama, [300, 320, 390, 410], device="cpu") == [320]
    assert chosen(llama, [390, 320], device="cpu") == []


def test_the_oldest_is_always_next(llama):
    """Whatever comes later and fits better."""
    forwards = forwards_of(llama)
    at_once(llama, [request(i, n, 1) for i, n in enumerate([40, 300, 41, 120, 42, 301, 43])])
    assert forwards == [40 + 41 + 42 + 43, 300 + 301, 120]


def test_a_prompt_that_begins_like_one_in_the_forward_waits_and_finds_that_computed(engine, model):
    fixed = prompt(9, 80)
    requests = [Request(fixed + prompt(i, 20 + i), 6, signals=Signals(entropy=True)) for i in range(6)]
    expected = alone(model, requests)
    forwards = forwards_of(engine)
    alike(at_once(engine, requests), expected)
    assert forwards[0] == 80 + 20
    assert [n for n in forwards if n > 6][1:] == [sum(20 + i for i in range(1, 6))]


def test_hidden_states_and_models_that_failed_the_trial_stay_alone(llama, monkeypatch):
    requests = [Request(prompt(i, 40), 3, signals=Signals(hidden_state=1)) for i in range(3)]
    forwards = forwards_of(llama)
    states = [g.steps[0].hidden_state for g in at_once(llama, requests)]
    assert forwards[:3] == [40] * 3
    for r, state in zip(requests, states, strict=True):
        assert torch.allclose(state, llama.generate(r).steps[0].hidden_state, atol=1e-3)
    monkeypatch.setattr(AttentionSwitch, "_rows_match", lambda self, known, new: not new[0][1:])
    other = Engine(tiny_llama(), tiny_tokenizer())
    forwards = forwards_of(other)
    at_once(other, [request(i, 40) for i in range(3)])
    assert forwards[-1] < 40
    assert [n for n in forwards if n >= 40] == [40] * 3
    other.generate_batch([request(i, 30) for i in range(3)])
    assert max(forwards) == 40


# ---------------------------------------------------------------------- adapters


class PackedShiftBackend(ShiftBackend):
    @contextlib.contextmanager
    def activate_packed(self, rows, lengths):
        values = torch.tensor([0.0 if r is None else r.value for r in rows])
        shift = values.repeat_interleave(torch.tensor(lengths)).view(1, -1, 1) * torch.linspace(-4, 4, 32)
        handle = self._layer.register_forward_hook(lambda _m, _a, out: out + shift)
        try:
            yield
        finally:
            handle.remove()


@pytest.mark.parametrize(("backend", "buckets"), [(ShiftBackend, [40 + 42, 41 + 43]), (PackedShiftBackend, [166])])
def test_rows_with_different_adapters_are_prefilled_together_where_the_backend_can(backend, buckets):
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
    """Has lost one adapter."""

    def activate(self, rows):
        self._check(rows)
        return super().activate(rows)

    def activate_packed(self, rows, lengths):
        self._check(rows)
        return super().activate_packed(rows, lengths)

    def _check(self, rows):
        if any(r is not None and r.value == 13.0 for r in rows):
            raise AdapterError("no such document")


def test_an_adapter_that_is_gone_ends_its_own_generation_only(llama):
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


def test_a_reader_that_fails_at_its_first_token_fails_alone(llama):
    def refuse(step):
        raise RuntimeError("not this one")

    requests = [request(0, 40), request(1, 41, stop_when=refuse), request(2, 42)]
    expected = alone(llama.model, [requests[0], requests[2]])
    futures = while_busy(llama, *[lambda r=r: llama.generate(r) for r in requests])
    assert str(futures[1].exception()) == "not this one"
    alike([futures[0].result(), futures[2].result()], expected)


@pytest.mark.parametrize("error", [RuntimeError("device lost"), torch.OutOfMemoryError("too many")])
def test_a_forward_that_fails_leaves_every_row_as_it_was(llama, error):
    """What is too much together may go well in turn; any other failure is everybody's. Nobody's cache is harmed."""
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


def test_whoever_was_taken_along_by_one_that_is_interrupted_queues_up_again(llama):
    class Interrupt(BaseException):
        """Ctrl-C, in one thread."""

    requests = [request(i, 40 + i) for i in range(3)]
    expected = alone(llama.model, requests)
    failed = []

    def interrupt(_module, _args, output):
        if output.shape[1] > 100 and not failed:
            failed.append(1)
            raise Interrupt

    handle = llama.model.get_decoder().layers[1].register_forward_hook(interrupt)
    futures = while_busy(llama, *[lambda r=r: llama.generate(r) for r in requests])
    handle.remove()
    assert isinstance(futures[0].exception(), Interrupt)
    assert [f.result().token_ids for f in futures[1:]] == [g.token_ids for g in expected[1:]]


def test_a_row_that_is_cancelled_while_it_waits_is_not_computed(llama):
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
        with llama._lock:
            futures = []
            for stream in streams:
                futures.append(pool.submit(read, stream))
                while len(llama._lock._waiting) < len(futures):
                    time.sleep(0.001)
            pool.submit(cancel)
            gate.wait(10)
        assert [s.token_id for s in futures[0].result(60)] == expected[0].token_ids
        assert [f.result(60) for f in futures[1:]] == [[], []]
    assert max(forwards) == 40
    assert [s.finish_reason for s in streams[1:]] == ["cancelled"] * 2
