"""Tests of `injection="auto"` in a query engine: the mode of each node, its retrieval count, and the prompt."""

import pytest

from llamaindex_prag.adapters.active_adapters import BESIDE_TEXT
from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.llama_index import ParametricNodePostprocessor
from llamaindex_prag.placement.auto_chooser import AutoChooser
from llamaindex_prag.placement.auto_policy import AutoPolicy
from llamaindex_prag.placement.costs import Costs
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.llama_index.conftest import QUESTION, TEXTS, Fixed, engine_of

# Training costs as much as reading twice.
COSTS = Costs(read=1.0, activate=1e-6, train=1.5)


def asked(llm, number):
    return llm.model.store.get_json("asked", text_hash(TEXTS[number]))


def test_a_node_is_read_at_the_first_query_and_trained_at_the_second(llm, calls):
    engine = engine_of(llm, Fixed(3), post={"injection": "auto", "missing": "train", "costs": COSTS})
    engine.query(QUESTION)
    assert TEXTS[3] in calls[-1][0]
    assert calls[-1][1] is None
    assert not llm.model.knows(TEXTS[3])
    engine.query(QUESTION)
    prompt, selection = calls[-1]
    assert TEXTS[3] not in prompt
    assert selection.keys == (llm.model.key(TEXTS[3]),)
    assert asked(llm, 3) == 2


def test_removing_a_document_removes_its_count(llm):
    engine = engine_of(llm, Fixed(0), post={"injection": "auto", "missing": "train", "costs": COSTS})
    engine.query(QUESTION)
    assert asked(llm, 0) == 1
    llm.model.store.remove_document("doc-0")
    assert asked(llm, 0) is None


def test_combined_shows_the_text_beside_a_weak_adapter(llm, calls):
    policy = AutoPolicy(quality=0.9, qualities={"context": 0.8, "combined": 1.0, "trained": 0.7})
    post = {"injection": "auto", "missing": "train", "costs": COSTS, "auto": policy}
    engine_of(llm, Fixed(0, 1), post=post).query(QUESTION)
    prompt, selection = calls[-1]
    assert TEXTS[0] in prompt
    assert selection.weights == pytest.approx([BESIDE_TEXT / 2] * 2)


def test_retrievals_are_counted_in_memory_if_the_store_is_read_only(llm):
    path = llm.model.store.path
    with LMDBStore(path, model=llm.model.store.model, readonly=True) as frozen:
        chooser = AutoChooser(llm.model, costs=COSTS)
        chooser._store = frozen
        ways = [chooser.choose([TEXTS[3]])[0].way for _ in range(3)]
    assert ways == ["context", "trained", "trained"]


def test_contradictory_options_are_rejected(llm):
    with pytest.raises(ConfigurationError, match="decides itself, so leave it out"):
        ParametricNodePostprocessor(llm=llm, route="retrieval", injection="auto", missing="error", costs=COSTS)
    with pytest.raises(ConfigurationError, match="costs: only for injection='auto'"):
        ParametricNodePostprocessor(llm=llm, route="retrieval", costs=COSTS)
