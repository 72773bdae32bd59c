"""Adapters that act from the answer on, in a graph: the prompt is read once, whatever is injected."""

from dataclasses import replace

import pytest
import torch
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from langgraph_dynrag import Trace
from langgraph_dynrag.injection.parametric import ParametricInjector
from langgraph_dynrag.queries import QFS
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.triggers import RIND, Entropy
from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.parametric_model import ParametricModel
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.injection.weights import QUESTION, TEXTS, drafts, graph, injections
from tests.llamaindex_prag.made import random_values

RECIPE = get_recipe("distill", rank=2, layers=None, acts_from="answer")


@pytest.fixture
def adapters(lm, store):
    made = ParametricModel.of(lm, store, recipe=RECIPE, max_adapters=3)
    for i, text in enumerate(TEXTS):
        store.put(made.key(text), Adapter(made.layout, random_values(made.layout, i, 0.1), 2.0), {})
    return made


class Turning(BaseRetriever):
    """Returns another document for each query."""

    calls: list[str] = Field(default_factory=list)

    def _get_relevant_documents(self, query, *, run_manager):
        self.calls.append(query)
        return [Document(TEXTS[len(self.calls) % 4], metadata={"source": "x"})]


def test_other_evidence_in_mid_answer_does_not_read_the_prompt_again(adapters, requests):
    result = graph(adapters, retriever=Turning()).invoke({"question": QUESTION})
    first, *later = drafts(result)
    assert len({tuple(d["in_weights"]) for d in drafts(result)}) > 1
    prompt = first["prompt_tokens"]
    for draft in later:
        assert draft["cached_tokens"] >= prompt - 1
        assert draft["forward_tokens"] <= 40 + 12  # of the answer alone
    assert {request.answer_from for request in requests} == {prompt}


def test_an_answer_drafted_in_pieces_equals_one_written_at_once(adapters, requests):
    result = graph(adapters, TEXTS[2]).invoke({"question": QUESTION})
    assert len(requests) > 2
    first = requests[0]
    whole = adapters.lm.engine.generate(
        Request(first.prompt, 40, adapters=first.adapters, answer_from=first.answer_from)
    )
    assert result["answer"].strip()
    assert whole.text.strip().startswith(result["answer"].strip())
    assert whole.text != adapters.lm.engine.generate(Request(first.prompt, 40)).text


def test_recomputed_attention_equals_the_recorded_one(adapters, requests):
    graph(adapters, TEXTS[2]).invoke({"question": QUESTION})
    last = replace(requests[-1], max_new_tokens=6, signals=Signals(attention=True))  # continues an answer
    engine = adapters.lm.engine
    written = engine.generate(last)
    engine.prefixes.clear()
    scored = engine.score(
        last.prompt, written.token_ids, attention=True, adapters=last.adapters, answer_from=last.answer_from
    )
    for i, step in enumerate(written.steps):
        torch.testing.assert_close(scored.attention[:, i, : step.attention.shape[-1]], step.attention)


@pytest.mark.parametrize("ensemble", ["mixture", "product"])
def test_an_ensemble_drafts_what_the_engine_generates_with_it(adapters, requests, ensemble):
    injector = ParametricInjector(adapters, route="retrieval", missing="context", ensemble=ensemble, max_active=3)
    result = graph(adapters, *TEXTS[:3], k=3, injection=injector).invoke({"question": QUESTION})
    first = requests[0]
    made = first.adapters
    assert (made.kind, len(made)) == (ensemble, 3)
    assert all(len(draft["in_weights"]) == 3 for draft in drafts(result))
    whole = adapters.lm.engine.generate(Request(first.prompt, 40, adapters=made, answer_from=first.answer_from))
    # Where two drafts meet, bytes that are no character leave another number of replacement characters.
    written, expected = (text.replace("\ufffd", "").strip() for text in (result["answer"], whole.text))
    assert written
    assert expected.startswith(written)


def test_adapters_are_merged_as_the_injector_says(lm, store, requests):
    start = AdapterKey(lm.fingerprint, "a" * 64, text_hash("warm-up"))
    adapters = ParametricModel.of(lm, store, recipe=RECIPE.changed(start=start.digest), max_adapters=3)
    for i, key in enumerate([*map(adapters.key, TEXTS), start]):
        store.put(key, Adapter(adapters.layout, random_values(adapters.layout, i, 0.1), 2.0), {})
    injector = ParametricInjector(adapters, route="retrieval", missing="context", merge="shared_once", max_active=2)
    graph(adapters, *TEXTS[:2], k=2, injection=injector).invoke({"question": QUESTION})
    assert requests[0].adapters.keys[-1] == start
    assert requests[0].adapters.weights == (1.0, 1.0, -1.0)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"trigger": RIND(1.0)}, r"trigger=RIND.* needs attention of a single forward pass"),
        ({"trigger": Entropy(1.0), "query": QFS()}, r"query=QFS.* needs attention"),
        ({"evidence_selector": LeastUncertain()}, "evidence_selector=LeastUncertain.* needs end_states"),
    ],
)
def test_a_graph_that_reads_attention_or_hidden_states_refuses_an_ensemble_when_it_is_built(adapters, part, reason):
    injector = ParametricInjector(adapters, route="retrieval", missing="context", ensemble="mixture", max_active=2)
    with pytest.raises(ConfigurationError, match=f"{reason}.* ensemble='mixture'"):
        graph(adapters, injection=injector, **part)
    merging = ParametricInjector(adapters, route="retrieval", missing="context", max_active=2)
    assert graph(adapters, injection=merging, **part)


@pytest.mark.parametrize("route", ["lexical", "ask"])
def test_each_retrieval_routes_anew_and_the_trace_shows_the_scores(adapters, route):
    injector = ParametricInjector(adapters, missing="context", route=route)
    result = graph(adapters, *TEXTS[:3], k=3, injection=injector).invoke({"question": "Who built bridge number 2?"})
    for event in injections(result):
        best = max(event["routing"], key=event["routing"].get)
        assert event["in_weights"] == [best]
    chosen = next(s["text"] for s in result["sources"] if s["id"] == injections(result)[0]["in_weights"][0])
    assert chosen == TEXTS[2] if route == "lexical" else chosen in TEXTS[:3]
    assert "routed by score: " in str(Trace.from_state(result))
