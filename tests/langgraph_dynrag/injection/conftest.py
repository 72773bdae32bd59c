"""What the tests of injection share: a tiny model with an adapter for each text."""

import pytest

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.injection.weights import TEXTS, UNTIDY
from tests.llamaindex_prag.made import random_values
from tests.llamaindex_prag.translator.conftest import strong
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture
def lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@pytest.fixture
def store(lm, tmp_path):
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26) as opened:
        yield opened


@pytest.fixture
def adapters(lm, store):
    made = ParametricModel.of(lm, store, recipe="prag", max_adapters=3, translator=strong(lm))
    for i, text in enumerate([*TEXTS, UNTIDY]):
        adapter = Adapter(made.layout, random_values(made.layout, i, 0.1), 2.0)
        store.put(made.key(text), adapter, {}, owners=[f"doc-{i}"])
    return made


@pytest.fixture
def requests(lm, monkeypatch):
    seen = []
    admit = lm.engine._admit
    monkeypatch.setattr(lm.engine, "_admit", lambda request: seen.append(request) or admit(request))
    return seen
