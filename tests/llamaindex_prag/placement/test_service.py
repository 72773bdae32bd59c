"""Tests that planning, making and placing lead to the same decisions in both frameworks, whatever is missing."""

import logging

import pytest
from llama_index.core.bridge.pydantic import Field
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import NodeWithScore, TextNode

from langgraph_dynrag.evidence import Passage
from langgraph_dynrag.injection.parametric import ParametricInjector
from llamaindex_prag.adapters.adapter import Adapter, text_hash
from llamaindex_prag.llama_index import ParametricLLM, ParametricNode, ParametricNodePostprocessor
from llamaindex_prag.llama_index.postprocessor import AdaptersInjectedEvent
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.placement.candidate import Candidate, PlacementPlan
from llamaindex_prag.placement.placer import NO_ADAPTER, Placer
from llamaindex_prag.placement.service import PlacementService
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.made import random_values
from tests.llamaindex_prag.translator.conftest import TRAINED, strong
from tests.tiny import tiny_llama, tiny_tokenizer

LONG = "The river rose. " * 900
OTHERS = ["A road was built by Ada.", "A tower was built by Bo."]


def candidates(*texts, **options):
    return [Candidate(f"c{i}", text, name=f"doc {i}", **options) for i, text in enumerate(texts)]


def service(model, *, max_active=None, **options):
    return PlacementService(
        model, Placer(model, max_active=max_active), waiting=logging.getLogger(), **{"route": "retrieval", **options}
    )


@pytest.mark.parametrize("missing", ["context", "translate"])
@pytest.mark.parametrize("max_active", [1, 2])
@pytest.mark.parametrize("combined", [False, True])
def test_both_frameworks_place_the_same_passages_alike(model, lm, store, missing, max_active, combined):
    texts, scores, mode = [OTHERS[0], TRAINED, OTHERS[1]], [0.2, 0.5, 0.9], "combined" if combined else "parametric"
    llm = ParametricLLM(lm=lm, store=store, recipe="prag", max_adapters=3, translator=model.translations.translator)
    post = ParametricNodePostprocessor(
        llm=llm, route="retrieval", missing=missing, max_active=max_active, injection=mode
    )
    nodes = [NodeWithScore(node=TextNode(id_=t, text=t), score=s) for t, s in zip(texts, scores, strict=True)]
    found = post.postprocess_nodes(nodes, query_str="Who?")
    injector = ParametricInjector(model, route="retrieval", missing=missing, max_active=max_active, injection=mode)
    passages = [
        Passage(id=t, text=t, title="", source="", score=s, metadata={}) for t, s in zip(texts, scores, strict=True)
    ]
    injector.prepare(passages)
    placed = injector.place(passages, "Who?")
    acting = [n.node.node_id for n in found if isinstance(n.node, ParametricNode)]
    assert tuple(acting) == placed.in_weights
    assert len(acting) == (max_active if missing == "translate" else 1)
    told = {n.node.node_id: n.node.metadata["dynprag"].get("why") for n in found if n.node.node_id not in acting}
    assert told == placed.reasons
    assert {i for t in found for i in t.node.metadata["dynprag"].get("left_out", {})} == set(placed.left_out)


def test_plans_follow_the_settings_and_blank_passages_never_act(model):
    assert service(model, missing="translate", beside=True).plan(candidates("a", " ")) == [
        PlacementPlan("translate", beside=True),
        PlacementPlan("translate", beside=True, in_context="no text"),
    ]
    with pytest.raises(AdapterError, match="2 of 3 retrieved nodes have no adapter, the first is c0"):
        service(model, missing="error").plan(candidates(OTHERS[0], TRAINED, OTHERS[1]))


def test_a_cleaned_copy_acts_through_the_adapter_of_its_original(model):
    (copy,) = candidates("a copy", original=text_hash(TRAINED))
    assert service(model, missing="context").place([copy]).selection.keys == (model.key(TRAINED),)


def test_a_passage_that_cannot_be_learnt_is_replaced_by_the_next_and_not_tried_again(model, caplog):
    found, used = candidates(LONG, OTHERS[0], OTHERS[1]), service(model)
    for trained in (1, 0):
        made = used.prepare(found)
        assert made.trained == trained
        assert "Split it into passages" in made.failed["c0"]
        placed = used.place(found)
        assert (placed.in_weights, placed.in_prompt) == ((1,), {0: NO_ADAPTER})
        assert list(placed.left_out) == [2]
    assert len([r for r in caplog.records if "a passage of" in r.message]) == 1


def test_with_a_failing_store_no_more_adapters_are_made_and_the_texts_are_read(store, tmp_path, caplog):
    store.close()
    lm = CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, readonly=True) as readonly:
        reading = ParametricModel.of(lm, readonly, recipe="prag", max_adapters=3, translator=strong(lm))
        found, used = candidates(*OTHERS, "A mill was built by Cy."), service(reading, missing="translate")
        made = used.prepare(found)
        assert (made.translated, list(made.failed), made.store_failed) == (0, ["c0"], True)
        assert "readonly=True" in made.failed["c0"]
        assert "1 passages have no adapter" in caplog.text
        assert used.place(found).in_prompt == dict.fromkeys(range(3), NO_ADAPTER)


class Injected(BaseEventHandler):
    events: list = Field(default_factory=list)

    def handle(self, event, **_):
        if isinstance(event, AdaptersInjectedEvent):
            self.events.append(event)


def passages_about(*texts):
    return [Passage(id=t, text=t, title="", source="", score=1.0 - i / 10, metadata={}) for i, t in enumerate(texts)]


@pytest.mark.parametrize("route", ["lexical", "ask"])
def test_the_routed_passage_acts_in_both_frameworks_and_its_score_is_reported(lm, store, route):
    llm = ParametricLLM(lm=lm, store=store, recipe="prag", max_adapters=3)
    for i, text in enumerate([*OTHERS, TRAINED]):
        buffer = random_values(llm.model.layout, i, 0.1 + 0.2 * (i == 1))
        store.put(llm.model.key(text), Adapter(llm.model.layout, buffer, 2.0), {})
    injector = ParametricInjector(llm.model, missing="context", route=route)
    passages = passages_about(TRAINED, *reversed(OTHERS))
    question = "Who built the tower, was it Bo?"
    injector.prepare(passages, question)
    placed = injector.place(passages, question)
    best = max(placed.routing, key=placed.routing.get)
    assert placed.in_weights == (best,)
    assert best != TRAINED if route == "ask" else best == OTHERS[1]  # retrieval alone would choose the first
    heard = Injected()
    get_dispatcher().add_event_handler(heard)
    post = ParametricNodePostprocessor(llm=llm, missing="context", route=route)
    nodes = [NodeWithScore(node=TextNode(id_=p["id"], text=p["text"]), score=p["score"]) for p in passages]
    found = post.postprocess_nodes(nodes, query_str=question)
    get_dispatcher().event_handlers.remove(heard)
    assert [n.node.node_id for n in found if isinstance(n.node, ParametricNode)] == [best]
    (event,) = heard.events
    assert event.routing == pytest.approx(dict(placed.routing))
    assert (event.asked is not None) == (route == "ask")


def test_the_routed_passage_is_the_one_that_is_made(model):
    made = service(model, missing="translate", route="lexical")
    passages = candidates("a bridge over the water", "The tower was built by Bo.")
    report = made.prepare(passages, "Who built the tower?")
    assert report.translated == 1
    assert model.find("The tower was built by Bo.") is not None
    assert model.find("a bridge over the water") is None
    placed = made.place(passages, "Who built the tower?")
    assert placed.in_weights == (1,)
    assert placed.routing.scores[1] > placed.routing.scores[0]


def test_a_question_that_no_adapter_answers_is_answered_from_text(model, monkeypatch):
    asking = service(model, missing="context", route="ask")
    monkeypatch.setattr(asking._router, "_bound", 1e9)
    passages = candidates(TRAINED)
    made = asking.prepare(passages, "Who?")
    assert "no adapter answers 1e+09 nats better" in made.failed["c0"]
    placed = asking.place(passages, "Who?")
    assert placed.selection is None
    assert list(placed.in_prompt) == [0]


def test_an_unknown_route_names_the_known_ones(model):
    with pytest.raises(ConfigurationError, match=r"route is 'lexcal' \(did you mean 'lexical'\?\)"):
        service(model, route="lexcal")


def test_the_route_chooses_and_the_retrieval_scores_weigh(lm, store):
    made = ParametricModel.of(lm, store, recipe="prag", max_adapters=3)
    for i, text in enumerate(OTHERS):
        store.put(made.key(text), Adapter(made.layout, random_values(made.layout, i, 0.1), 2.0), {})
    placer = Placer(made, merge="score", max_active=2)
    placing = PlacementService(made, placer, waiting=logging.getLogger(), missing="context", route="lexical")
    passages = [Candidate("a", OTHERS[0], score=3.0), Candidate("b", OTHERS[1], score=1.0)]
    placed = placing.place(passages, "Who built the tower?")
    assert placed.selection.weights == pytest.approx((0.75, 0.25))
    assert placed.routing.scores == pytest.approx((0.0, 0.0))
