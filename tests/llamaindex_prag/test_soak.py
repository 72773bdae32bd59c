"""Many callers for a long time: abandoned streams, adapters and ensembles, raising callbacks, cancelled coroutines.

`DYNPRAG_SOAK_SECONDS` sets the duration; `make soak` takes ten minutes.
"""

import asyncio
import gc
import os
import random
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rag_backbone.aio import iterate_in_own_thread
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import AdapterError
from tests.llamaindex_prag.made import key_of, random_model

SECONDS = float(os.environ.get("DYNPRAG_SOAK_SECONDS", "600"))
THREADS = 16
LEAD = 2e-3
"""Minimum lead of a token's log-probability over the second: more than what the engine's guarantee leaves open."""


class Kind:
    """A request, and the tokens that it generates when it runs alone."""

    def __init__(self, model, ids, adapters, signals):
        self.options = {"max_new_tokens": 24, "signals": signals, "adapters": adapters}
        self.ids = ids
        self.alone = []
        model.lm.engine.prefixes.clear()
        for step in model.lm.engine.stream(Request(ids, signals=Signals(top_logprobs=2), **without(self.options))):
            first, second = (logprob for _, logprob in step.top_logprobs)
            if first - second < LEAD:  # rounding decides from here on
                break
            self.alone.append(step.token_id)

    def request(self, **options):
        return Request(self.ids, **self.options, **options)

    def agrees(self, token_ids):
        """Return whether these tokens are a prefix of those generated alone, or continue them."""
        n = min(len(token_ids), len(self.alone))
        return list(token_ids[:n]) == self.alone[:n]


def without(options):
    return {name: value for name, value in options.items() if name != "signals"}


def kinds(model):
    rng = random.Random(3)
    text = [rng.randrange(5, 390) for _ in range(600)]
    signals = [Signals(), Signals(entropy=True, attention=True), Signals(hidden_state=-1)]
    keys = [model.key(f"text {i}") for i in range(3)]
    sets = [None, *(model.select([key]) for key in keys), model.select(keys[:2], merge="sum")]
    ensembles = [model.ensemble(keys, kind=kind, scores=[0.9, 0.1, 0.5]) for kind in ("mixture", "product")]
    return [
        *(
            Kind(model, text[start : start + length], adapters, signals[(start + length) % 3])
            for adapters in sets
            for start, length in [(0, 5), (0, 40), (3, 60), (7, 300), (0, 520)]
        ),
        *(
            Kind(model, text[start : start + length], adapters, Signals(entropy=True))
            for adapters in ensembles
            for start, length in [(0, 5), (0, 40), (7, 300)]
        ),
    ]


class Caller:
    """Makes the calls of one thread."""

    def __init__(self, model, all_kinds, seed):
        self.engine, self.kinds, self.rng = model.lm.engine, all_kinds, random.Random(seed)
        self.gone = model.select([key_of("nobody's")], strength=0.5)
        self.wrong, self.calls = [], 0

    def call(self):
        kind = self.rng.choice(self.kinds)
        way = self.rng.choice([self.whole, self.left, self.dropped, self.raising, self.cancelled, self.lacking])
        if not kind.agrees(tokens := way(kind)):
            self.wrong.append((way.__name__, kind.ids[:3], tokens, kind.alone))
        self.calls += 1

    def whole(self, kind):
        return self.engine.generate(kind.request()).token_ids

    def left(self, kind):
        with self.engine.stream(kind.request()) as stream:
            return [step.token_id for step, _ in zip(stream, range(self.rng.randrange(1, 8)), strict=False)]

    def dropped(self, kind):
        stream = iter(self.engine.stream(kind.request()))
        return [next(stream).token_id for _ in range(2)]  # leave the stream to the garbage collector

    def raising(self, kind):
        seen = []

        def stop_when(step):
            seen.append(step.token_id)
            if len(seen) == 3:
                raise LookupError("on purpose")
            return False

        with pytest.raises(LookupError, match="on purpose"):
            self.engine.generate(kind.request(stop_when=stop_when))
        return seen

    def cancelled(self, kind):
        seen = []

        async def read():
            async for step in iterate_in_own_thread(lambda: iter(self.engine.stream(kind.request()))):
                seen.append(step.token_id)

        async def main():
            reading = asyncio.ensure_future(read())
            await asyncio.sleep(self.rng.random() * 0.05)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

        asyncio.run(main())
        return seen

    def lacking(self, kind):
        with pytest.raises(AdapterError):
            self.engine.generate(Request(kind.ids, 3, adapters=self.gone))
        return []


@pytest.mark.slow
def test_many_concurrent_callers_get_the_same_tokens_as_alone(tmp_path):
    with random_model(tmp_path, 0.1) as model:
        model.lm.engine.prefixes.max_bytes = 1 << 24
        every = kinds(model)
        assert sum(len(kind.alone) for kind in every) > 100
        callers = [Caller(model, every, seed) for seed in range(THREADS)]
        end, memory = time.monotonic() + SECONDS, []

        def run(caller):
            while time.monotonic() < end and not caller.wrong:
                caller.call()

        with ThreadPoolExecutor(THREADS) as pool:
            running = [pool.submit(run, caller) for caller in callers]
            while time.monotonic() < end and not all(future.done() for future in running):
                time.sleep(SECONDS / 20)
                memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            for future in running:
                future.result(60)  # a call that never ends is a deadlock
        assert [caller.wrong for caller in callers if caller.wrong] == []
        assert sum(caller.calls for caller in callers) > SECONDS
        gc.collect()
        turns = model.lm.engine._scheduler._turns
        model.lm.engine.run(lambda: None)
        assert (turns._asks, list(turns._works), len(turns._under_way)) == ([], [], 0)
        assert threading.active_count() < 4 + THREADS
        print(f"{sum(c.calls for c in callers)} calls, peak memory in MiB: {[m >> 10 for m in memory]}")
        half = len(memory) // 2
        assert max(memory[half:]) < max(memory[:half]) + (64 << 10)
