"""A real llama.cpp server: with tiny random models for arithmetic, with the embedded one for answers."""

import pytest
from langchain_core.documents import Document
from langchain_openai import ChatOpenAI

from langgraph_dynrag import BM25Retriever
from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.serving.llamacpp_model import LlamaCppModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.llamacpp_server import LlamaCppServer
from tests.llamacpp.tiny_gguf import write_gguf
from tests.llamaindex_prag.made import random_values
from tests.tiny import tiny_llama, tiny_qwen2, tiny_tokenizer

TEXTS = [f"The bridge number {i} was built by engineer {i} in the year {1900 + i}." for i in range(5)]
CORPUS = {
    "Tarn Ellis": "Tarn Ellis is a harbour town. It was founded in 1871 by Odile Marrash, a surveyor from Quillon.",
    "Odile Marrash": "Odile Marrash was a surveyor. She was born in Quillon and commanded the ferry Patient Anna.",
    "Patient Anna": "The Patient Anna is a car ferry between Tarn Ellis and Quillon. It carries 28 cars.",
}


@pytest.fixture(scope="session", autouse=True)
def _installed():
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: pip install 'dynprag[llamacpp]'")


@pytest.fixture(params=[tiny_llama, tiny_qwen2])
def lm(request):
    return CausalLM(request.param(), tiny_tokenizer(), name="tiny")


@pytest.fixture
def gguf_file(lm, tmp_path):
    return write_gguf(lm.model, lm.tokenizer, tmp_path / "tiny.gguf")


@pytest.fixture
def server(gguf_file):
    with LlamaCppServer(gguf_file, context_window=512, threads=1, parallel=2) as running:
        yield running


@pytest.fixture(params=["prag"])
def store(request, lm, tmp_path):
    """Hold random adapters of one recipe."""
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26) as opened:
        made = ParametricModel.of(lm, opened, recipe=request.param, max_adapters=3)
        for i, text in enumerate(TEXTS):
            opened.put(made.key(text), Adapter(made.layout, random_values(made.layout, i, 0.1), 2.0), {})
        yield opened


@pytest.fixture
def local(lm, store):
    return ParametricModel.of(lm, store, recipe="prag", max_adapters=3)


@pytest.fixture
def served(server, lm, store, tmp_path):
    return LlamaCppModel(server, store, lm=lm, recipe="prag", max_adapters=3, folder=tmp_path / "files")


@pytest.fixture(scope="session")
def embedded_server():
    """Serve the embedded model's own file, in four bits."""
    with LlamaCppServer("embedded", threads=1, parallel=2) as running:
        yield running


@pytest.fixture(scope="session")
def retriever():
    documents = [Document(text, metadata={"title": title, "source": title}) for title, text in CORPUS.items()]
    return BM25Retriever.from_documents(documents, k=2)


def chat(server, **options):
    given = {"model": server.name, "api_key": "none", "temperature": 0, "max_retries": 0, "timeout": 300, **options}
    return ChatOpenAI(base_url=server.base_url, **given)
