"""Tests that callers with different documents and strategies do not disturb each other, in threads and in one loop.

Routes, merges and ensembles run concurrently. Each answer equals the one that its caller gets without other callers,
also if other calls are cancelled. Float32 and greedy, as in `test_isolation`.
"""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.prompts import clean_answer
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.aio import in_own_thread
from tests.llamaindex_prag.llama_index.tenants import QUESTIONS, Case, Found, Strategy, Tenants, small_lm
from tests.llamaindex_prag.llama_index.test_isolation import ENGINES, WAYS, counted, mixture, wrong
from tests.llamaindex_prag.made import random_values

pytestmark = pytest.mark.usefixtures("one_thread")

USERS, TOKENS = 9, 8
NAMED = "Whose business are the papers of user {}?"
COMBINED = [Strategy(merge) for merge in ("mean", "sum", "score", "orthogonal", "shared_once")]
COMBINED += [Strategy(ensemble=kind) for kind in ("mixture", "product")]
ROUTED = [Strategy(route=route, max_active=1) for route in ("lexical", "ask")]
ROUTED += [Strategy(ensemble="mixture", route="ask"), Strategy("sum", route="lexical")]
MARGIN = 0.02
"""Minimum difference of two gains in nats, larger than what rounding may change."""


def cases():
    """Three users with documents of their own, all strategies, and the base model."""
    for first in range(0, USERS, 3):
        own = (first, first + 1, first + 2)
        yield from (Case(own[:2], QUESTIONS[0], strategy) for strategy in COMBINED)
        for question in (NAMED.format(first + 1), QUESTIONS[1]):  # the second is about none of the documents
            yield from (Case(own, question, strategy) for strategy in ROUTED)
    yield from (Case((), question) for question in QUESTIONS)


def answer(tenants, case):
    """Answer a case without LlamaIndex."""
    way, routed = case.strategy, case.strategy in ROUTED
    return tenants.model.answer(
        case.question,
        documents=[tenants.texts[i] for i in case.documents],
        scores=[node.score for node in tenants.nodes(case)] if case.documents else None,
        merge=way.merge,
        ensemble=way.ensemble,
        route=way.route if routed else None,
        max_active=way.max_active if routed else None,
        max_new_tokens=TOKENS,
    )


def decided(tenants, case):
    """Return whether a route chooses by more than what rounding may change."""
    if case.strategy.route != "ask":
        return True
    gains = sorted([0.0, *answer(tenants, case).scores])
    return min(b - a for a, b in pairwise(gains)) > MARGIN


@pytest.fixture(scope="module")
def users(one_thread, tmp_path_factory):
    """Return a factory of users of a new small model whose recipe has a start, all with the same store."""
    lm = small_lm()
    start = AdapterKey(lm.fingerprint, "a" * 64, text_hash("warm-up"))
    recipe = get_recipe("prag", start=start.digest)
    folder = tmp_path_factory.mktemp("strategies") / "store"
    with LMDBStore(folder, model=lm.fingerprint, encoding="float32", map_size=1 << 26) as store:

        def made(slots):
            tenants = Tenants(
                small_lm(), store, USERS, size=0.15, slots=slots, tokens=TOKENS, recipe=recipe, max_adapters=3
            )
            if start not in store:
                layout = tenants.model.layout
                store.put(start, Adapter(layout, random_values(layout, 99, 0.15), 2.0), {})
            return tenants

        yield made


@pytest.fixture(scope="module")
def answers(users):
    """Answers by case, from a model without other users."""
    tenants = users(slots=1)
    return tenants.alone_of(case for case in cases() if decided(tenants, case))


@pytest.fixture(scope="module")
def plainly(users, answers):
    """Answers by case without LlamaIndex, from a model without other users."""
    tenants, found = users(slots=1), {}
    for case in answers:
        tenants.forget()
        found[case] = answer(tenants, case)
    return found


def test_every_strategy_has_answers_that_tell_its_users_apart(answers, plainly):
    for strategy in COMBINED + ROUTED:
        own = [case for case in answers if case.strategy == strategy]
        assert len({case.documents for case in own if case.documents}) >= 2
        assert len({answers[case] for case in own}) == len(own)
    same = {answers[case] for case in answers if case.documents == (0, 1)}
    assert len(same) >= len(COMBINED) - 2  # most strategies differ for the same documents
    refused = {case.strategy.route for case, said in plainly.items() if case.strategy in ROUTED and not said.used}
    assert "lexical" in refused
    assert any(said.used for case, said in plainly.items() if case.strategy.route == "ask")


def test_an_answer_without_llamaindex_is_the_same(answers, plainly):
    for case, said in plainly.items():
        if said.used or not case.documents:  # if none acts, LlamaIndex puts the texts into the prompt
            assert clean_answer("".join(answers[case])) == said


@pytest.mark.parametrize(("seed", "slots"), [(1, 9), pytest.param(2, 9, marks=pytest.mark.slow), (3, 2)])
def test_threads_with_different_strategies_get_the_same_answers_as_alone(users, answers, seed, slots):
    tenants = users(slots=slots)
    with counted(tenants.model.bank) as counts:
        found = mixture(tenants, answers, 60, threads=8, seed=seed)
    assert wrong(found, answers) == []
    assert len({call.case.strategy for call in found}) > len(COMBINED + ROUTED) / 2
    assert {call.way for call in found} <= {way.__name__ for way in WAYS + ENGINES}
    assert counts["mixed"] > 20


def test_calls_without_llamaindex_get_the_same_answers_as_alone(users, plainly):
    tenants, order = users(slots=5), list(plainly) * 2
    random.Random(4).shuffle(order)
    with counted(tenants.model.bank) as counts, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda case: answer(tenants, case), order))
    assert [(case, said, plainly[case]) for case, said in zip(order, found, strict=True) if said != plainly[case]] == []
    assert [said.used for said in found] == [plainly[case].used for case in order]
    assert counts["mixed"] > 20


@pytest.mark.parametrize("seed", [5, pytest.param(6, marks=pytest.mark.slow)])
async def test_cancelled_tasks_of_one_event_loop_leave_the_others_as_they_were(users, answers, seed):
    tenants, rng, order = users(slots=6), random.Random(seed), list(answers)
    rng.shuffle(order)

    async def read(case, taken):
        prompt = await in_own_thread(tenants.prompt, case)
        async for response in await tenants.llm_of(case).astream_complete(prompt):
            taken.append(response.delta)

    async def cancelled(case):
        taken = []
        reading = asyncio.create_task(read(case, taken))
        await asyncio.sleep(rng.random() * 0.3)  # while it is routed, or in the middle of its answer
        reading.cancel()
        await asyncio.wait([reading])
        if not reading.cancelled():
            reading.result()
        return Found("cancelled", case, tuple(taken), left=bool(taken) or reading.cancelled())

    async def streamed(case):
        taken = []
        await read(case, taken)
        return Found("streamed", case, tuple(taken))

    async def queried(case):
        return Found("queried", case, (str(await tenants.engine(case).aquery(case.question)),))

    ways = [rng.choice([cancelled, streamed, queried if case.documents else streamed]) for case in order]
    found = await asyncio.gather(*(way(case) for way, case in zip(ways, order, strict=True)))
    assert wrong([call for call in found if call.pieces], answers) == []
    assert all(call.pieces for call in found if call.way != "cancelled")
    assert min(Counter(call.way for call in found).values()) > len(order) / 6
