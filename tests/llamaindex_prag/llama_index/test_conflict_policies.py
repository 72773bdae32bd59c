"""Tests of contradicting nodes in a query engine: the effect of each policy, and its event."""

import pytest
from llama_index.core.bridge.pydantic import Field
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import NodeWithScore

from llamaindex_prag.adapters.adapter import Adapter, text_hash
from llamaindex_prag.llama_index import ParametricNodePostprocessor
from llamaindex_prag.llama_index.postprocessor import AdaptersInjectedEvent
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.llama_index.conftest import QUESTION, TEXTS, Fixed, engine_of, node
from tests.llamaindex_prag.made import random_values, version_of


class Injected(BaseEventHandler):
    """Records the postprocessor's events."""

    found: list = Field(default_factory=list)

    def handle(self, event, **kwargs):
        if isinstance(event, AdaptersInjectedEvent):
            self.found.append(event)


@pytest.fixture
def contradicting(llm, store):
    """Make the adapters of nodes 0 and 1 contradict each other with certainty; that of node 2 changes nothing."""
    first = random_values(llm.model.layout, 10, 0.5)
    made = (first, version_of(llm.model.layout, first, 11), random_values(llm.model.layout, 12, 1e-6))
    for i, values in enumerate(made):
        adapter = Adapter(llm.model.layout, values, 2.0)
        store.put(llm.model.key(TEXTS[i]), adapter, {}, owners=[f"doc-{i}"])
    handler = Injected(found=[])
    get_dispatcher().add_event_handler(handler)
    yield handler.found
    get_dispatcher().event_handlers.remove(handler)


def dated(*years):
    nodes = [node(i, **({"last_modified_date": f"{year}-05-01"} if year else {})) for i, year in enumerate(years)]
    return [NodeWithScore(node=n, score=0.9 - 0.3 * i) for i, n in enumerate(nodes)]


@pytest.mark.parametrize("policy", ["mean", "score-weighted", "latest", "context"])
def test_contradicting_nodes_are_treated_according_to_the_policy(llm, calls, contradicting, policy):
    nodes = dated(2019, 2024, None)
    response = engine_of(llm, Fixed(nodes=nodes), post={"conflicts": policy}).query(QUESTION)
    prompt, selection = calls[-1]
    (event,) = contradicting
    (pair,) = event.conflicts["pairs"]
    assert pair["nats"] > 1
    texts = [key.text for key in selection.keys]
    hashes = [text_hash(t) for t in TEXTS[:3]]
    if policy == "latest":
        assert (texts, list(event.left_out)) == (hashes[1:], ["node-0"])
        assert TEXTS[0] not in prompt
        assert len(response.source_nodes) == 2
    elif policy == "context":
        assert (texts, sorted(event.in_context)) == (hashes[2:], ["node-0", "node-1"])
        assert TEXTS[0] in prompt
        assert TEXTS[1] in prompt
        assert "document 2 says" in event.in_context["node-0"]
    else:
        shares = [0.9, 0.6, 0.3] if policy == "score-weighted" else [0.6] * 3
        assert selection.weights == pytest.approx([s / 1.8 for s in shares], rel=1e-3)
        assert TEXTS[0] not in prompt


def test_conflicts_are_measured_only_with_a_policy_and_unknown_policies_are_rejected(llm, contradicting):
    engine_of(llm, Fixed(nodes=dated(2019, 2024, None))).query(QUESTION)
    assert contradicting[0].conflicts is None
    with pytest.raises(ConfigurationError, match="conflicts is 'newest'; known: mean"):
        ParametricNodePostprocessor(llm=llm, conflicts="newest")
