"""Tests that lone surrogates in nodes, prompts and queries are replaced on input."""

import pytest
from llama_index.core import PromptTemplate, Settings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode

from llamaindex_prag.adapters.adapter import Adapter, text_hash
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.llama_index import ParametricNodePostprocessor, ParametrizeNodes
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from tests.llamaindex_prag.llama_index.conftest import Fixed
from tests.llamaindex_prag.made import random_values

CUT = "The keeper \ud83d wrote a letter. \udce9"
SOUND = "The keeper \ufffd wrote a letter. \ufffd"


def cut_node():
    node = TextNode(id_="n\ud83d", text=CUT, metadata={"title": "Kee\ud83dper"})
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="doc\udce9")
    return node


def test_both_forms_of_a_text_have_one_adapter():
    assert text_hash(CUT) == text_hash(SOUND)
    assert Passage(CUT, "a\ud83d").text == SOUND
    assert Passage(CUT, "a\ud83d").title == "a\ufffd"


async def test_prompts_and_conversations_with_surrogates_are_answered(llm):
    messages = [ChatMessage(role="system", content="Be \udc00 brief."), ChatMessage(role="user", content=CUT)]
    assert llm.complete(CUT).text == llm.complete(SOUND).text
    assert [r.delta for r in llm.stream_complete(CUT)]
    assert [r async for r in await llm.astream_complete(CUT)]
    assert (await llm.acomplete(CUT)).text is not None
    for asked in (messages, messages[1:]):
        assert llm.chat(asked).message.content is not None
        assert list(llm.stream_chat(asked))
        assert (await llm.achat(asked)).message.content is not None
    assert llm.predict(PromptTemplate("{q}"), q=CUT) is not None


@pytest.mark.parametrize("injection", ["parametric", "combined"])
def test_nodes_with_surrogates_act_through_their_adapters(llm, store, injection):
    store.put(llm.model.key(CUT), Adapter(llm.model.layout, random_values(llm.model.layout, 5, 0.1), 2.0), {})
    found = [NodeWithScore(node=cut_node(), score=0.9)]
    made = ParametricNodePostprocessor(llm=llm, missing="error", injection=injection)
    (placed,) = made.postprocess_nodes(found, query_bundle=QueryBundle("Who \ud83d wrote?"))
    assert placed.node.node_id == "n\ud83d"
    engine = RetrieverQueryEngine.from_args(Fixed(nodes=found), llm=llm, node_postprocessors=[made])
    assert engine.query("Who \ud83d wrote?").source_nodes[0].node.text == CUT


def test_nodes_with_surrogates_but_without_an_adapter_stay_in_the_prompt(llm):
    found = [NodeWithScore(node=cut_node(), score=0.9)]
    made = ParametricNodePostprocessor(llm=llm, missing="context")
    engine = RetrieverQueryEngine.from_args(Fixed(nodes=found), llm=llm, node_postprocessors=[made])
    assert str(engine.query("Who \ud83d wrote?")) is not None


def test_nodes_with_surrogates_are_packed_by_the_tokenizer_of_the_model(llm, monkeypatch):
    monkeypatch.setattr("llama_index.core.global_tokenizer", None)  # restored after `Settings.tokenizer = ...`
    Settings.tokenizer = llm.tokenizer
    assert llm.tokenizer(CUT) == llm.tokenizer(SOUND)
    engine = RetrieverQueryEngine.from_args(Fixed(nodes=[NodeWithScore(node=cut_node(), score=0.9)]), llm=llm)
    assert str(engine.query("Who \ud83d wrote?")) is not None


def test_nodes_with_surrogates_can_be_parametrized(llm):
    step = ParametrizeNodes(llm=llm, progress=False)
    step._parametrizer = Parametrizer(llm.model, augmenter=Augmenter(None, questions=3))
    assert step([cut_node()])
    assert llm.model.knows(SOUND)


def test_a_model_answers_a_question_with_surrogates(llm):
    assert llm.model.answer("Who \ud83d?", documents=[], passages=[CUT]) is not None
