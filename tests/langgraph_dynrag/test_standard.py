"""LangChain's standard test suites for the chat model and the retrievers."""

import pytest
from langchain_core.documents import Document
from langchain_tests.integration_tests import ChatModelIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.retrieval import BM25Retriever, DenseRetriever, HybridRetriever, LocalIndex
from langgraph_dynrag.retrieval.live import LiveVectors

DOCUMENTS = [
    Document(f"The keeper of lighthouse {i} wrote a letter.", metadata={"title": f"Letter {i}"}) for i in range(5)
]


class TestLocalChatModelUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self):
        return LocalChatModel

    @property
    def supports_model_override(self):
        return False


class TestLocalChatModelIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self):
        return LocalChatModel

    @property
    def chat_model_params(self):
        return {"max_tokens": 12}

    @pytest.fixture
    def model(self, request, embedded_lm):
        """Replace the suite's fixture, which loads the weights again for each test."""
        options = {**self.standard_chat_model_params, **self.chat_model_params, **getattr(request, "param", {})}
        return LocalChatModel.from_causal_lm(embedded_lm, **options)

    @property
    def supports_model_override(self):
        return False

    @property
    def has_structured_output(self):
        return False  # a model of 135M parameters rarely ends an unbounded text; see test_structured_output

    @pytest.mark.xfail(reason="a model of 135M parameters rarely ends an unbounded text", strict=False)
    def test_unicode_tool_call_integration(self, model):
        super().test_unicode_tool_call_integration(model)

    @pytest.mark.xfail(reason="a model of 135M parameters rarely calls a tool unless forced", run=False)
    def test_agent_loop(self, model):
        super().test_agent_loop(model)


class TestBM25(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self):
        return lambda **options: BM25Retriever.from_documents(DOCUMENTS, **options)

    @property
    def retriever_constructor_params(self):
        return {}

    @property
    def retriever_query_example(self):
        return "Who wrote a letter?"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    for i, document in enumerate(DOCUMENTS):
        (folder / f"{i}.txt").write_text(document.page_content)
    built = LocalIndex(folder / "index")
    built.ingest(folder, progress=False)
    return built


class TestDense(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _with_index(self, index):
        self._index = index

    @property
    def retriever_constructor(self):
        return lambda **options: DenseRetriever(store=LiveVectors(self._index), **options)

    @property
    def retriever_constructor_params(self):
        return {}

    @property
    def retriever_query_example(self):
        return "Who wrote a letter?"


class TestHybrid(TestDense):
    @property
    def retriever_constructor(self):
        parts = [self._index.as_retriever("dense"), self._index.as_retriever("bm25")]
        return lambda **options: HybridRetriever(retrievers=parts, **options)
