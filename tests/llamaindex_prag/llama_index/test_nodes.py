"""Nodes that stand for their adapters: in prompts, after a change of their text, and when saved."""

import copy
import json
import pickle

import pytest
from llama_index.core.postprocessor import LongContextReorder, MetadataReplacementPostProcessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from workflows.context.serializers import JsonSerializer, PickleSerializer

from llamaindex_prag.llama_index import ParametricNode, ParametricNodePostprocessor, markers
from rag_backbone.errors import AdapterError
from tests.llamaindex_prag.llama_index.conftest import QUESTION, TEXTS, Fixed, alone, node


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
    posts = [
        ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error", injection=injection),
        Rewriting(way=way),
    ]
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
    parametric = ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error")
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


def test_a_node_is_the_passage_except_in_prompts(llm):
    post = ParametricNodePostprocessor(llm=llm, route="retrieval", missing="error")
    given = NodeWithScore(node=node(0, title="A title"), score=0.7)
    (found,) = post.postprocess_nodes([given], query_str=QUESTION)
    assert found.score == 0.7
    assert found.node.node_id == given.node.node_id
    for mode in (MetadataMode.NONE, MetadataMode.EMBED):
        assert found.node.get_content(mode) == given.node.get_content(mode)
    assert found.node.get_content(MetadataMode.LLM).startswith("⟦adapter:")
    assert [b.text for b in found.node.get_content_blocks(MetadataMode.LLM)] == [
        found.node.get_content(MetadataMode.LLM)
    ]
    assert "⟦" not in found.node.model_dump_json()
    assert given.node.get_content(MetadataMode.LLM) != found.node.get_content(MetadataMode.LLM)


def roundtrips():
    json_of = JsonSerializer()
    pickled = PickleSerializer()
    return {
        "dict": lambda n: ParametricNode.from_dict(n.to_dict()),
        "json": lambda n: ParametricNode.from_json(n.to_json()),
        "pydantic": lambda n: ParametricNode.model_validate_json(n.model_dump_json()),
        "pickle": lambda n: pickle.loads(pickle.dumps(n)),
        "workflow, json": lambda n: json_of.deserialize(json_of.serialize(n)),
        "workflow, pickle": lambda n: pickled.deserialize(pickled.serialize({"nodes": [n]}))["nodes"][0],
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
    }


@pytest.mark.parametrize("way", roundtrips())
@pytest.mark.parametrize("beside", [False, True])
def test_a_saved_node_is_restored_with_its_adapter(llm, answered, way, beside):
    given = answered.node.model_copy(update={"beside_text": beside})
    again = roundtrips()[way](given)
    assert type(again) is ParametricNode
    assert again == given
    assert again.get_content(MetadataMode.LLM) == given.get_content(MetadataMode.LLM)
    assert "⟦" not in json.dumps(again.to_dict(), ensure_ascii=False)
    engine = RetrieverQueryEngine.from_args(Fixed(nodes=[NodeWithScore(node=again, score=0.7)]), llm=llm)
    if not beside:
        assert str(engine.query(QUESTION)) == alone(llm, 0, strength=0.5)


def test_a_node_saved_by_another_process_is_signed_again(answered, llm, monkeypatch):
    data = answered.node.to_dict()
    with monkeypatch.context() as elsewhere:  # each process has its own secret
        elsewhere.setattr(markers, "_SECRET", b"another process's secret")
        elsewhere.setattr(markers, "_issued", {})
        there = ParametricNode.from_dict(json.loads(json.dumps(data)))
        data, theirs = json.loads(json.dumps([there.to_dict(), there.get_content(MetadataMode.LLM)]))
    again = ParametricNode.from_dict(data)
    assert again == answered.node
    assert theirs != again.get_content(MetadataMode.LLM)  # the other process has a different signature
    engine = RetrieverQueryEngine.from_args(Fixed(nodes=[NodeWithScore(node=again, score=0.7)]), llm=llm)
    assert str(engine.query(QUESTION)) == alone(llm, 0, strength=0.5)


def test_a_saved_node_of_another_model_or_a_removed_document_raises(llm, answered, store):
    data = answered.node.to_dict()
    stranger = ParametricNode.from_dict({**data, "adapter": {**data["adapter"], "model": "0" * 64}})
    with pytest.raises(AdapterError, match="another model or recipe"):
        llm.complete(stranger.get_content(MetadataMode.LLM))
    store.remove_document("doc-0")
    with pytest.raises(AdapterError):
        llm.complete(ParametricNode.from_dict(data).get_content(MetadataMode.LLM))
