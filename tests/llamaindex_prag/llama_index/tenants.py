"""Documents of many users behind one model, and the answers that each question has alone."""

from collections.abc import Iterable
from dataclasses import dataclass

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.adapters.bank import AdapterBank
from llamaindex_prag.llama_index import ParametricLLM, ParametricNodePostprocessor
from llamaindex_prag.llama_index.prompts import TEXT_QA
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.made import random_values
from tests.tiny import tiny_llama, tiny_tokenizer

QUESTIONS = ["Who wrote a letter?", "When did the river rise?"]
LEAD = 2e-3
"""Minimum lead in log-probability of each token over the second, larger than the engine's guaranteed tolerance."""


def small_lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@dataclass(frozen=True)
class Strategy:
    """How several documents answer: which of them, and how their adapters are combined."""

    merge: str = "mean"
    ensemble: str | None = None
    route: str = "retrieval"
    max_active: int = 2


@dataclass(frozen=True)
class Case:
    """A question, and the documents whose adapters answer it; without any, the base model answers."""

    documents: tuple[int, ...]
    question: str
    strategy: Strategy = Strategy()


@dataclass(frozen=True)
class Found:
    """Result of one call: the pieces of its text, and whether it was abandoned before the end."""

    way: str
    case: Case
    pieces: tuple[str, ...]
    left: bool = False


class Nodes(BaseRetriever):
    """Returns the same nodes for every query."""

    def __init__(self, found: list[NodeWithScore]):
        self._found = found
        super().__init__()

    def _retrieve(self, query_bundle):
        return list(self._found)


class Tenants:
    """Documents of many users, each with a random adapter, behind one model."""

    def __init__(self, lm, store, users, *, size, slots, tokens=8, recipe="prag", max_adapters=2):
        self.llm = ParametricLLM(lm=lm, store=store, recipe=recipe, max_adapters=max_adapters, max_new_tokens=tokens)
        self.model = self.llm.model
        self.model.bank = AdapterBank(lm.model, self.model.layout, store, max_adapters=max_adapters, slots=slots)
        lm.engine.attach(self.model.bank)
        self.texts = [f"The papers of user {i}, which are nobody else's business." for i in range(users)]
        for i, text in enumerate(self.texts):
            if not self.model.knows(text):
                adapter = Adapter(self.model.layout, random_values(self.model.layout, i, size), 2.0)
                store.put(self.model.key(text), adapter, {"made": "at random"}, owners=[f"doc-{i}"])
        nodes = [
            TextNode(text=text, metadata={"user": i}, excluded_llm_metadata_keys=["user"])
            for i, text in enumerate(self.texts)
        ]
        self._index = VectorStoreIndex(nodes, embed_model=MockEmbedding(2))

    def key(self, document: int):
        return self.model.key(self.texts[document])

    def llm_of(self, case: Case) -> ParametricLLM:
        """Return the language model with the case's way of combining adapters."""
        return self.llm.model_copy(update={"merge": case.strategy.merge, "ensemble": case.strategy.ensemble})

    def postprocessor(self, case: Case) -> ParametricNodePostprocessor:
        route, most = case.strategy.route, case.strategy.max_active
        return ParametricNodePostprocessor(llm=self.llm_of(case), route=route, missing="error", max_active=most)

    def nodes(self, case: Case) -> list[NodeWithScore]:
        """Return a case's documents as a retriever would, with a different score for each."""
        texts = [self.texts[i] for i in case.documents]
        return [NodeWithScore(node=TextNode(text=text), score=0.9 - 0.2 * i) for i, text in enumerate(texts)]

    def prompt(self, case: Case) -> str:
        """Return the prompt that a query engine writes for a case."""
        found = self.postprocessor(case).postprocess_nodes(self.nodes(case), query_str=case.question)
        context = "\n\n".join(n.get_content(MetadataMode.LLM) for n in found)
        return TEXT_QA.format(context_str=context, query_str=case.question)

    def engine(self, case: Case, **options):
        """Build a user's query engine over the nodes of the case, or over the shared index if they are merged.

        The shared index is filtered to this user's documents.
        """
        if case.strategy != Strategy():
            return RetrieverQueryEngine.from_args(
                Nodes(self.nodes(case)),
                llm=self.llm_of(case),
                node_postprocessors=[self.postprocessor(case)],
                **options,
            )
        own = MetadataFilter(key="user", value=list(case.documents), operator=FilterOperator.IN)
        return self._index.as_query_engine(
            llm=self.llm,
            similarity_top_k=len(case.documents),
            filters=MetadataFilters(filters=[own]),
            node_postprocessors=[self.postprocessor(case)],
            **options,
        )

    def forget(self) -> None:
        """Clear all caches, as if nothing had been asked yet."""
        self.model.lm.engine.prefixes.clear()
        self.model.bank.clear()

    def alone(self, documents: Iterable[tuple[int, ...]]) -> dict[Case, tuple[str, ...]]:
        """Return the pieces of each answer when each question is asked alone."""
        return self.alone_of([Case(d, question) for question in QUESTIONS for d in documents])

    def alone_of(self, cases: Iterable[Case]) -> dict[Case, tuple[str, ...]]:
        """Return the pieces of each case's answer when it is asked alone, without those that rounding may change."""
        answers = {}
        for case in cases:
            self.forget()
            response = self.llm_of(case).complete(self.prompt(case), top_logprobs=2)
            if len(response.logprobs) > 4 and all(a.logprob - b.logprob > LEAD for a, b in response.logprobs):
                answers[case] = tuple(first.token for first, _ in response.logprobs)
                assert "".join(answers[case]) == response.text
        self.forget()
        return answers
