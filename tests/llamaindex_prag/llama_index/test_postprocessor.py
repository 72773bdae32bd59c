"""Which retrieved nodes act through their adapters, how this is reported, and what is rejected or replaced by text."""

import logging

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode

from llamaindex_prag.guards.forgetting import ForgettingGuard
from llamaindex_prag.llama_index import ParametricLLM, ParametricNode, ParametricNodePostprocessor
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.store.lmdb_store import LMDBStore
from llamaindex_prag.training.trainer import Trainer
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.llama_index.conftest import (
    QUESTION,
    TEXTS,
    Fixed,
    alone,
    assert_nothing_pasted,
    engine_of,
    node,
    watched_events,
)
from tests.tiny import tiny_llama, tiny_tokenizer


def scored(*scores, texts=(0, 1, 2)):
    return [NodeWithScore(node=node(i), score=s) for i, s in zip(texts, scores, strict=False)]


def acting(llm, nodes, **options):
    post = ParametricNodePostprocessor(llm=llm, **{"missing": "error", "route": "retrieval", **options})
    found = post.postprocess_nodes(nodes, query_str=QUESTION)
    return [n.node.node_id for n in found if isinstance(n.node, ParametricNode)], found


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.9, 0.8, 0.7), ["node-0"]),
        ((0.1, 0.8, 0.7), ["node-1"]),  # as after LongContextReorder
        ((0.5, 0.5, 0.5), ["node-0"]),
        ((None, None, None), ["node-0"]),
        ((None, 0.9, 0.1), ["node-0"]),
        ((-3.0, -1.0, -2.0), ["node-1"]),  # a reranker's logits
        ((float("nan"), 0.0, -1.0), ["node-1"]),
        ((float("nan"), float("nan")), ["node-0"]),
        ((float("inf"), 1.0), ["node-0"]),
    ],
)
def test_the_best_scored_node_acts_alone(llm, scores, expected):
    ids, found = acting(llm, scored(*scores))
    assert ids == expected
    assert len(found) == 1


def test_the_same_text_twice_is_one_passage(llm, calls):
    twice = [*scored(0.9, 0.8), NodeWithScore(node=TextNode(id_="again", text=TEXTS[0]), score=0.1)]
    ids, _ = acting(llm, twice)
    assert ids == ["node-0", "again"]
    engine = RetrieverQueryEngine.from_args(
        Fixed(nodes=twice),
        llm=llm,
        node_postprocessors=[ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error")],
    )
    engine.query(QUESTION)
    assert len(calls[-1][1]) == 1


@pytest.mark.parametrize("injection", ["parametric", "combined"])
@pytest.mark.parametrize("others", [None, "omit", "context"])
def test_the_other_nodes_are_left_out_or_stay_as_text(llm, calls, monkeypatch, caplog, injection, others):
    seen = watched_events(monkeypatch)
    post = ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error", injection=injection, others=others)
    engine = RetrieverQueryEngine.from_args(Fixed(0, 1), llm=llm, node_postprocessors=[post])
    with caplog.at_level(logging.INFO):
        response, _ = engine.query(QUESTION), engine.query(QUESTION)
    prompt, selection = calls[-1]
    stays = others == "context" or (others is None and injection == "combined")
    assert len(selection) == 1
    assert (TEXTS[1] in prompt) == stays
    assert (TEXTS[0] in prompt) == (injection == "combined")
    assert "dynprag" not in prompt
    assert "used" not in prompt
    reason = "another passage has a better score, and 1 may act through adapters (max_active)"
    assert seen[-1].injected == ["node-0"]
    assert (seen[-1].in_context, seen[-1].left_out) == (({"node-1": reason}, {}) if stays else ({}, {"node-1": reason}))
    used = [n.node.metadata["dynprag"] for n in response.source_nodes]
    assert used[0]["used"] == ("adapter and text" if injection == "combined" else "adapter")
    if stays:
        assert used[1] == {"used": "text", "why": reason}
    else:
        assert used[0]["left_out"] == {"node-1": reason}
        assert len(used) == 1
    told = [r for r in caplog.records if r.name.endswith("postprocessor")]
    assert [r.levelname for r in told] == ["WARNING", "INFO"]
    assert "node-1" in told[0].getMessage()


def test_with_llamaindexs_default_of_two_nodes_only_one_is_trained_and_used(llm, calls, monkeypatch):
    tried, original = [], Parametrizer.parametrize
    monkeypatch.setattr(Parametrizer, "parametrize", lambda self, ps, **o: original(self, tried.extend(ps) or ps, **o))
    texts = [f"In {1900 + i} the river rose in the town of Number {i}." for i in range(3)]
    index = VectorStoreIndex.from_documents([Document(text=t) for t in texts], embed_model=MockEmbedding(8))
    response = index.as_query_engine(
        llm=llm, node_postprocessors=[ParametricNodePostprocessor(llm=llm, route="retrieval")]
    ).query("?")
    assert len(tried) == 1
    assert len(calls[-1][1]) == 1
    assert response.source_nodes[0].metadata["dynprag"]["used"] == "adapter"
    assert len(response.source_nodes[0].metadata["dynprag"]["left_out"]) == 1


def test_the_next_node_replaces_one_that_cannot_be_learnt(llm):
    long = NodeWithScore(node=TextNode(id_="long", text="river " * 3000), score=1.0)
    ids, found = acting(llm, [long, *scored(0.9, 0.8)], missing="train")
    assert ids == ["node-0"]
    assert found[0].node.metadata["dynprag"]["used"] == "text"
    assert "Split it into passages" in found[0].node.metadata["dynprag"]["why"]


def test_several_nodes_act_if_max_active_allows_it(llm, caplog):
    ids, found = acting(llm, scored(0.1, 0.9, 0.8), max_active=2, others="context")
    assert ids == ["node-1", "node-2"]
    assert [n.node.node_id for n in found] == ["node-0", "node-1", "node-2"]
    assert [r.levelname for r in caplog.records if r.name.endswith("postprocessor")] == ["WARNING"]
    assert acting(llm, scored(0.1, 0.9, 0.8), max_active=3)[0] == ["node-0", "node-1", "node-2"]
    for options, message in [
        ({"max_active": 4}, "max_active is 4; it must be from 1 to 3"),
        ({"max_active": 1, "conflicts": "mean"}, "merges several documents"),
        ({"others": "prompt"}, "others"),
    ]:
        with pytest.raises((ConfigurationError, ValueError), match=message):
            ParametricNodePostprocessor(llm=llm, **options)


def test_more_nodes_than_a_call_may_use_are_logged_at_every_query(llm, caplog, store):
    fourth = NodeWithScore(node=TextNode(id_="fourth", text="A tower was built."), score=0.1)
    from llamaindex_prag.adapters.adapter import Adapter
    from tests.llamaindex_prag.made import random_values

    store.put(
        llm.model.key("A tower was built."), Adapter(llm.model.layout, random_values(llm.model.layout, 9, 0.1), 2.0), {}
    )
    post = ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error", max_active=3, others="context")
    for _ in range(2):
        caplog.clear()
        found = post.postprocess_nodes([*scored(0.9, 0.8, 0.7), fourth], query_str=QUESTION)
        assert "more than the 3 adapters that a call may use" in found[3].node.metadata["dynprag"]["why"]
        (record,) = (r for r in caplog.records if r.name.endswith("postprocessor"))
        assert record.levelname == "WARNING"
        assert "3 of 4 retrieved nodes act" in record.getMessage()


def test_the_given_nodes_are_not_changed(llm):
    given = [NodeWithScore(node=ImageNode(id_="i", text="A picture.", metadata={"a": 1}), score=0.2), *scored(0.9)]
    before = [n.model_dump_json() for n in given]
    _, found = acting(llm, given, missing="context")
    assert [n.model_dump_json() for n in given] == before
    assert isinstance(found[0].node, ImageNode)
    assert "dynprag" not in found[0].node.get_content(MetadataMode.LLM)
    assert "dynprag" not in found[0].node.get_content(MetadataMode.EMBED)
    assert found[0].node.metadata["dynprag"] == {"used": "text", "why": "no adapter"}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("route", ["lexical", "ask", "retrieval"])
async def test_the_source_nodes_of_a_response_tell_the_routers_score(llm, route, streaming, monkeypatch):
    seen = watched_events(monkeypatch)
    post = ParametricNodePostprocessor(llm=llm, route=route, missing="error", max_active=2, others="context")
    engine = RetrieverQueryEngine.from_args(Fixed(0, 1, 2), llm=llm, node_postprocessors=[post], streaming=streaming)
    for response in (engine.query(QUESTION), await engine.aquery(QUESTION)):
        told = {n.node.node_id: n.node.metadata["dynprag"] for n in response.source_nodes}
        assert len(told) == 3
        if route == "retrieval":
            assert not any("score" in use for use in told.values())
            continue
        assert {node: use["score"] for node, use in told.items()} == seen[-1].routing
        best = max(told, key=lambda node: told[node]["score"])
        assert told[best]["used"] == ("text" if seen[-1].injected == [] else "adapter")


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
def test_combined_keeps_the_metadata_that_prompts_show(llm, calls, mode):
    shown = TextNode(
        id_="shown", text=TEXTS[0], metadata={"page": "17", "secret": "x"}, excluded_llm_metadata_keys=["secret"]
    )
    post = ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error", injection="combined")
    engine = RetrieverQueryEngine.from_args(
        Fixed(nodes=[NodeWithScore(node=shown, score=1.0)]), llm=llm, node_postprocessors=[post], response_mode=mode
    )
    engine.query(QUESTION)
    assert shown.get_content(MetadataMode.LLM) in calls[0][0]
    assert "secret" not in calls[0][0]
    assert len(calls[0][1]) == 1


@pytest.mark.parametrize("missing", ["context", "error"])
def test_a_node_without_an_adapter_stays_in_the_prompt_or_raises(llm, calls, missing):
    engine = engine_of(llm, Fixed(0, 3), post={"missing": missing})
    if missing == "error":
        with pytest.raises(AdapterError, match="node-3"):
            engine.query(QUESTION)
        return
    engine.query(QUESTION)
    ((prompt, selection),) = calls
    assert TEXTS[3] in prompt
    assert TEXTS[0] not in prompt
    assert len(selection) == 1


def test_a_missing_adapter_is_trained_once_and_kept(llm, store, calls):
    engine = engine_of(llm, Fixed(3), post={"missing": "train"})
    engine.query(QUESTION)
    assert llm.model.knows(TEXTS[3])
    assert store.record(llm.model.key(TEXTS[3]))["steps"] >= 1
    calls.clear()
    engine.query(QUESTION)
    assert len(calls) == 1  # nothing was augmented or trained again
    assert_nothing_pasted(calls)


def test_nodes_without_text_take_no_adapter_slot(llm, calls, store):
    nodes = [NodeWithScore(node=node(i), score=0.5) for i in (0, 1, 2)]
    nodes.insert(1, NodeWithScore(node=TextNode(text="  "), score=0.5))
    engine_of(llm, Fixed(nodes=nodes)).query(QUESTION)
    assert len(calls[0][1]) == 3


def test_impossible_combinations_are_rejected_with_a_remedy(llm):
    with pytest.raises(ConfigurationError, match="ParametricLLM"):
        ParametricNodePostprocessor(llm=MockLLM())
    with pytest.raises(ConfigurationError, match="translator"):
        ParametricNodePostprocessor(llm=llm, missing="translate")
    with pytest.raises(ConfigurationError, match="known: parametric, combined"):
        ParametricNodePostprocessor(llm=llm, injection="both")
    index = VectorStoreIndex.from_documents([Document(text=TEXTS[0])], embed_model=MockEmbedding(8))
    post = ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error")
    citing = CitationQueryEngine.from_args(index, llm=llm, node_postprocessors=[post])
    with pytest.raises(AdapterError, match="source_nodes"):
        citing.query(QUESTION)
    reranked = RetrieverQueryEngine.from_args(Fixed(0, 1), llm=llm, node_postprocessors=[post, LLMRerank(llm=llm)])
    with pytest.raises(AdapterError, match="Put it before"):
        reranked.query(QUESTION)


def test_adapters_that_forget_too_much_are_weakened_or_replaced_by_text(llm, calls):
    engine_of(llm, Fixed(0, 1), post={"forgetting": 0.01}).query(QUESTION)
    selection = calls[-1][1]
    assert len(selection) == 2
    assert sum(selection.weights) < 1
    response = engine_of(llm, Fixed(0, 1), post={"forgetting": 1e-9}).query(QUESTION)
    prompt, selection = calls[-1]
    assert selection is None
    assert TEXTS[0] in prompt
    assert len(response.source_nodes) == 2


@pytest.mark.parametrize("injection", ["parametric", "combined"])
def test_a_node_that_cannot_be_trained_stays_in_the_prompt_and_is_not_tried_again(llm, injection, monkeypatch):
    post = ParametricNodePostprocessor(llm=llm, route="retrieval", injection=injection, max_active=2)
    long = TextNode(id_="long", text="The road goes on. " * 700)
    tried, original = [], Parametrizer.parametrize

    def parametrize(self, passages, **options):
        tried.append(list(passages))
        return original(self, tried[-1], **options)

    monkeypatch.setattr(Parametrizer, "parametrize", parametrize)
    seen = watched_events(monkeypatch)
    for _ in range(2):
        found = post.postprocess_nodes([NodeWithScore(node=n, score=1.0) for n in (node(0), long)], query_str=QUESTION)
        assert [n.node.node_id for n in found] == ["node-0", "long"]
        assert "⟦" not in found[1].node.get_content(MetadataMode.LLM)
        assert seen[-1].injected == ["node-0"]
        assert "can be learnt at once" in seen[-1].in_context["long"]
    assert len(tried) == 1


def test_a_read_only_store_is_noticed_before_training(llm, store, tmp_path, monkeypatch):
    store.close()
    with LMDBStore(tmp_path / "store", model=llm.model.lm.fingerprint, readonly=True) as opened:
        reading = ParametricLLM(lm=CausalLM(tiny_llama(), tiny_tokenizer()), store=opened, recipe="prag")
        post, seen = (
            ParametricNodePostprocessor(llm=reading, route="retrieval", max_active=2),
            watched_events(monkeypatch),
        )
        monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("it was trained"))
        post.postprocess_nodes([NodeWithScore(node=node(i), score=1.0) for i in (0, 3)], query_str=QUESTION)
        assert seen[-1].injected == ["node-0"]
        assert "readonly=True" in seen[-1].in_context["node-3"]
        with pytest.raises(ConfigurationError, match="1 passages have no adapter, and the store was opened"):
            Parametrizer(reading.model).parametrize([Passage(TEXTS[3])])


def test_scores_without_information_give_equal_weights(llm):
    by_score = llm.model_copy(update={"merge": "score"})
    for scores in ((None, None), (-3.0, -1.0), (0.0, float("nan"))):
        found = [NodeWithScore(node=node(i), score=s) for i, s in enumerate(scores)]
        engine = engine_of(by_score, Fixed(nodes=found))
        assert str(engine.query(QUESTION)) == alone(llm, 0, 1)


def test_each_adapter_alone_is_kept_within_the_forgetting_bound(llm, monkeypatch):
    """The mean of two opposing updates can forget little although each update alone forgets much."""
    seen, measured = watched_events(monkeypatch), {1: 4.0, 2: 0.5}

    def forgetting(_, selection):  # proportional to the square of the strength
        return measured[len(selection)] * sum(selection.weights) ** 2

    monkeypatch.setattr(ForgettingGuard, "forgetting", forgetting)
    nodes = [NodeWithScore(node=node(i), score=1.0) for i in (0, 1)]
    post = ParametricNodePostprocessor(llm=llm, route="retrieval", forgetting=1.0, max_active=2)
    post.postprocess_nodes(nodes, query_str=QUESTION)
    assert seen[-1].injected == ["node-0", "node-1"]
    assert 0.4 < seen[-1].strength <= 0.5
    assert seen[-1].forgetting == pytest.approx(4.0 * seen[-1].strength ** 2)
    assert 0.9 < seen[-1].forgetting <= 1.0
