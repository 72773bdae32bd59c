"""Tests that one user's documents never influence another user's answer when calls are mixed, abandoned or attacked.

Everything is float32 and greedy, where the engine guarantees logits within 1e-3 of those of a call alone. There is no
guarantee for answers in which the two most likely tokens are nearly equal somewhere, so no such question is used here.
"""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from llama_index.core.llms import ChatMessage

from llamaindex_prag.adapters.targets import target_layers
from llamaindex_prag.prompts import INSTRUCTION, prompt_ids
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.engine.requests import Request
from rag_backbone.loading.fingerprint import model_fingerprint
from tests.llamaindex_prag.llama_index.tenants import QUESTIONS, Found, Tenants, small_lm

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------ the ways to ask


def complete(tenants, case, rng):
    return (tenants.llm_of(case).complete(tenants.prompt(case)).text,), False


def chat(tenants, case, rng):
    asked = tenants.prompt(case).removeprefix(INSTRUCTION).lstrip()  # `complete` makes these two messages of a prompt
    messages = [ChatMessage(role="system", content=INSTRUCTION), ChatMessage(role="user", content=asked)]
    return (tenants.llm_of(case).chat(messages).message.content,), False


def acomplete(tenants, case, rng):
    return (asyncio.run(tenants.llm_of(case).acomplete(tenants.prompt(case))).text,), False


def stream(tenants, case, rng):
    return tuple(response.delta for response in tenants.llm_of(case).stream_complete(tenants.prompt(case))), False


def astream(tenants, case, rng):
    async def read():
        return tuple(
            [response.delta async for response in await tenants.llm_of(case).astream_complete(tenants.prompt(case))]
        )

    return asyncio.run(read()), False


def stream_left(tenants, case, rng):
    steps = tenants.llm_of(case).stream_complete(tenants.prompt(case))
    taken = tuple(next(steps).delta for _ in range(rng.randint(1, 4)))
    steps.close()
    return taken, True


def astream_left(tenants, case, rng):
    async def read(number):
        steps = await tenants.llm_of(case).astream_complete(tenants.prompt(case))
        taken = [(await anext(steps)).delta for _ in range(number)]
        await steps.aclose()
        return tuple(taken)

    return asyncio.run(read(rng.randint(1, 4))), True


def task_cancelled(tenants, case, rng):
    number, taken = rng.randint(1, 4), []

    async def read(enough):
        async for response in await tenants.llm_of(case).astream_complete(tenants.prompt(case)):
            taken.append(response.delta)
            if len(taken) == number:
                enough.set()

    async def cancel():
        enough = asyncio.Event()
        reading, waiting = asyncio.create_task(read(enough)), asyncio.create_task(enough.wait())
        await asyncio.wait([reading, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        reading.cancel()  # a thread is computing the next token
        await asyncio.wait([reading, waiting])
        if not reading.cancelled():
            reading.result()  # it had already finished; if it failed, this raises the error
        return reading.cancelled()

    left = asyncio.run(cancel())
    return tuple(taken), left


def query(tenants, case, rng):
    return (str(tenants.engine(case).query(case.question)),), False


def aquery(tenants, case, rng):
    return (str(asyncio.run(tenants.engine(case).aquery(case.question))),), False


def query_streamed(tenants, case, rng):
    return tuple(tenants.engine(case, streaming=True).query(case.question).response_gen), False


def query_left(tenants, case, rng):
    tokens = tenants.engine(case, streaming=True).query(case.question).response_gen
    taken = tuple(next(tokens) for _ in range(rng.randint(1, 4)))
    tokens.close()
    return taken, True


WAYS = [complete, chat, acomplete, stream, astream, stream_left, astream_left, task_cancelled]
ENGINES = [query, aquery, query_streamed, query_left]


def mixture(tenants, answers, number: int, threads: int, seed: int = 1954) -> list[Found]:
    """Make `number` calls from several threads, with random cases and ways, about one in eight without an adapter."""
    rng = random.Random(seed)
    plain, own = ([case for case in answers if bool(case.documents) is some] for some in (False, True))
    calls = []
    for i in range(number):
        case = rng.choice(own if rng.random() > 0.125 else plain)
        calls.append((rng.choice(WAYS + ENGINES if case.documents else WAYS), case, random.Random(i)))

    def ask(call):
        way, case, own_rng = call
        return Found(way.__name__, case, *way(tenants, case, own_rng))

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, calls))


def wrong(found: list[Found], answers) -> list[tuple[Found, tuple[str, ...]]]:
    """Return the calls whose text differs from the answer alone; abandoned calls are compared piece by piece."""

    def right(call: Found) -> bool:
        expected = answers[call.case]
        if call.left:
            return len(call.pieces) > 0 and call.pieces == expected[: len(call.pieces)]
        return "".join(call.pieces) == "".join(expected)

    return [(call, answers[call.case]) for call in found if not right(call)]


@contextmanager
def counted(bank):
    """Count filled slots, and forward passes whose sequences use different adapters."""
    counts, fill, activate = Counter(), bank._fill, bank.activate

    def filling(slot, selection):
        counts["filled"] += 1
        fill(slot, selection)

    def activating(rows):
        counts["mixed"] += len({None if row is None else row.cache_key for row in rows}) > 1
        return activate(rows)

    bank._fill, bank.activate = filling, activating
    try:
        yield counts
    finally:
        del bank._fill, bank.activate


# ------------------------------------------------------------------ fifty users of a small model


ALL = [(), *[(i,) for i in range(50)], *[(i, i + 25) for i in range(0, 25, 2)]]
"""The base model, each document alone, and some pairs."""


@pytest.fixture(scope="module")
def answers(fifty):
    """Answers by case, from a model without other users."""
    return fifty(slots=1).alone(ALL)


def test_answers_differ_between_users_and_from_the_base_model(answers):
    for question in QUESTIONS:
        texts = ["".join(pieces) for case, pieces in answers.items() if case.question == question]
        assert len(texts) >= 55
        assert len(set(texts)) >= 55
        begun = {pieces[:3] for case, pieces in answers.items() if case.question == question}
        assert len(begun) >= 40  # so even an abandoned stream can be attributed to its user


@pytest.mark.parametrize("calls", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_mixed_calls_of_fifty_users_give_the_same_answers_as_alone(tenants, answers, calls):
    with counted(tenants.model.bank) as counts:
        found = mixture(tenants, answers, calls, threads=8)
    assert wrong(found, answers) == []
    ways = Counter(call.way for call in found)
    assert set(ways) == {way.__name__ for way in WAYS + ENGINES}
    assert len({call.case.documents for call in found}) > 0.9 * len(ALL)
    assert sum(call.left for call in found if call.way == "task_cancelled") > ways["task_cancelled"] / 2
    assert counts["filled"] > 0.3 * calls  # with nine slots, a call's documents have usually been evicted
    assert counts["mixed"] > 0.3 * calls


def test_fewer_slots_than_callers_do_not_mix_adapters(fifty, answers):
    found = mixture(fifty(slots=2), answers, 60, threads=8)
    assert wrong(found, answers) == []


def test_the_base_model_is_unchanged_afterwards(tenants, answers):
    mixture(tenants, answers, 40, threads=8)
    model = tenants.model.lm.model
    assert model_fingerprint(model, tenants.model.lm.tokenizer) == tenants.model.store.model
    assert not any("forward" in vars(layer) for layer in target_layers(model, tenants.model.layout))
    ids = prompt_ids(tenants.model.lm.tokenizer, QUESTIONS[0])
    untouched = small_lm().engine.generate(Request(ids, 8))
    assert tenants.model.lm.engine.generate(Request(ids, 8)).token_ids == untouched.token_ids


# ------------------------------------------------------------------ twenty users of the embedded model


@pytest.mark.slow
def test_twenty_users_of_the_embedded_model_get_the_same_answers_as_alone(embedded_lm, tmp_path):
    with LMDBStore(tmp_path / "store", model=embedded_lm.fingerprint, encoding="float32") as store:
        tenants = Tenants(embedded_lm, store, 20, size=0.12, slots=5)
        answers = tenants.alone([(), *[(i,) for i in range(20)]])
        for question in QUESTIONS:
            texts = {"".join(pieces) for case, pieces in answers.items() if case.question == question}
            assert len(texts) >= 15
        with counted(tenants.model.bank) as counts:
            found = mixture(tenants, answers, 60, threads=4)
    assert wrong(found, answers) == []
    assert counts["filled"] > 20
    assert counts["mixed"] > 20
