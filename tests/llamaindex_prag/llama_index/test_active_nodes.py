"""Tests of which retrieved nodes act through their adapters, and how this is reported: event, log, source nodes."""

import logging

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.postprocessor import LongContextReorder, MetadataReplacementPostProcessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode

from llamaindex_prag.llama_index import ParametricNode, ParametricNodePostprocessor
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.placement.placer import best_scored
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.llama_index.conftest import TEXTS, Fixed, node
from tests.llamaindex_prag.llama_index.test_query_engines import QUESTION, watched_events


def scored(*scores, texts=(0, 1, 2)):
    return [NodeWithScore(node=node(i), score=s) for i, s in zip(texts, scores, strict=False)]


def acting(llm, nodes, **options):
    post = ParametricNodePostprocessor(llm=llm, **{"missing": "error", **options})
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
        Fixed(nodes=twice), llm=llm, node_postprocessors=[ParametricNodePostprocessor(llm=llm, missing="error")]
    )
    engine.query(QUESTION)
    assert len(calls[-1][1]) == 1


@pytest.mark.parametrize("injection", ["parametric", "combined"])
@pytest.mark.parametrize("others", [None, "omit", "context"])
def test_the_other_nodes_are_left_out_or_stay_as_text(llm, calls, monkeypatch, caplog, injection, others):
    seen = watched_events(monkeypatch)
    post = ParametricNodePostprocessor(llm=llm, missing="error", injection=injection, others=others)
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
    response = index.as_query_engine(llm=llm, node_postprocessors=[ParametricNodePostprocessor(llm=llm)]).query("?")
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
    post = ParametricNodePostprocessor(llm=llm, missing="error", max_active=3, others="context")
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


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
def test_combined_keeps_the_metadata_that_prompts_show(llm, calls, mode):
    shown = TextNode(
        id_="shown", text=TEXTS[0], metadata={"page": "17", "secret": "x"}, excluded_llm_metadata_keys=["secret"]
    )
    post = ParametricNodePostprocessor(llm=llm, missing="error", injection="combined")
    engine = RetrieverQueryEngine.from_args(
        Fixed(nodes=[NodeWithScore(node=shown, score=1.0)]), llm=llm, node_postprocessors=[post], response_mode=mode
    )
    engine.query(QUESTION)
    assert shown.get_content(MetadataMode.LLM) in calls[0][0]
    assert "secret" not in calls[0][0]
    assert len(calls[0][1]) == 1


class Rewriting(BaseNodePostprocessor):
    """Changes the text of nodes in one of the ways used by postprocessors."""

    way: str

    def _postprocess_nodes(self, nodes, query_bundle=None):
        for n in nodes:
            if self.way == "set_content":
                n.node.set_content(n.node.get_content()[:20])
            elif self.way == "text":
                n.node.text = "A translation."
            elif self.way == "copy":
                n.node = n.node.model_copy(update={"text": "A summary."})
            else:
                n.node = TextNode(text="Another node.")
        return nodes


@pytest.mark.parametrize("way", ["set_content", "text", "copy", "new node"])
@pytest.mark.parametrize("injection", ["parametric", "combined"])
def test_a_node_whose_text_is_changed_afterwards_never_uses_the_adapter(llm, calls, way, injection):
    posts = [ParametricNodePostprocessor(llm=llm, missing="error", injection=injection), Rewriting(way=way)]
    engine = RetrieverQueryEngine.from_args(Fixed(0), llm=llm, node_postprocessors=posts)
    if way == "new node":
        engine.query(QUESTION)
        assert calls[-1][1] is None
        assert "Another node." in calls[-1][0]
        return
    with pytest.raises(AdapterError, match=r"Put it before: node_postprocessors=\[rewriting, parametric\]"):
        engine.query(QUESTION)
    assert not calls


def test_llamaindexs_rewriting_postprocessor_works_before_and_is_rejected_after(llm, calls):
    windows = [NodeWithScore(node=node(0, window=TEXTS[1]), score=1.0)]
    parametric = ParametricNodePostprocessor(llm=llm, missing="error")
    replacing = MetadataReplacementPostProcessor(target_metadata_key="window")
    after = RetrieverQueryEngine.from_args(Fixed(nodes=windows), llm=llm, node_postprocessors=[parametric, replacing])
    with pytest.raises(AdapterError, match="MetadataReplacementPostProcessor"):
        after.query(QUESTION)
    absent = MetadataReplacementPostProcessor(target_metadata_key="nothing-here")  # changes nothing
    same = RetrieverQueryEngine.from_args(
        Fixed(nodes=windows), llm=llm, node_postprocessors=[parametric, absent, LongContextReorder()]
    )
    same.query(QUESTION)
    assert calls[-1][1].keys[0].text == llm.model.key(TEXTS[0]).text
    before = RetrieverQueryEngine.from_args(Fixed(nodes=windows), llm=llm, node_postprocessors=[replacing, parametric])
    response = before.query(QUESTION)
    assert calls[-1][1].keys[0].text == llm.model.key(TEXTS[1]).text
    assert response.source_nodes[0].text == TEXTS[1]


def test_best_scored_counts_equal_passages_once_and_skips_none():
    assert best_scored(["a", None, "b", "a"], [0.1, 9.0, 0.5, 0.9], 1) == [3, 0]
    assert best_scored(["a", "b"], None, 1) == [0]
    assert best_scored([None], [1.0], 3) == []
    assert best_scored([], [], 1) == []
