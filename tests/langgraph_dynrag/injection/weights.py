"""Graphs whose evidence acts through adapters, and what a run of them shows."""

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from langgraph_dynrag import AnswerPrompt, Budgets, LocalChatModel, create_dynamic_rag
from langgraph_dynrag.injection.parametric import ParametricInjector
from langgraph_dynrag.queries import LastSentence
from langgraph_dynrag.triggers import EverySentence

QUESTION = "Who built the bridge?"


TEXTS = [f"The bridge number {i} was built by engineer {i} in the year {1900 + i}." for i in range(8)]


UNTIDY = "The mill\n\nwas  built by nobody."


class Fixed(BaseRetriever):
    """Returns the same documents for every query."""

    documents: list[Document]

    def _get_relevant_documents(self, query, *, run_manager):
        return list(self.documents)


def graph(model, *texts, checkpointer=None, retriever=None, injection="parametric", **options):
    bounds = {
        name: options.pop(name) for name in ("missing", "max_active", "forgetting", "conflicts") if name in options
    }
    if injection in ("parametric", "combined"):
        injection = ParametricInjector(
            model, route="retrieval", injection=injection, **{"missing": "context", **bounds}
        )
    found = [Document(text, metadata={"title": f"doc {n}", "source": f"doc-{n}"}) for n, text in enumerate(texts)]
    return create_dynamic_rag(
        LocalChatModel.from_causal_lm(model.lm),
        retriever or Fixed(documents=found),
        checkpointer=checkpointer,
        **{
            "preset": "fixed_sentence",
            "trigger": EverySentence(),
            "query": LastSentence(),
            "injection": injection,
            "prompt": AnswerPrompt(answer_phrase=None, stop=()),
            "budgets": Budgets(tokens=40),
            "lookahead": 12,
            "initial_retrieval": True,
            **options,
        },
    )


def drafts(result):
    return [e for e in result["trace"] if e["type"] == "draft"]


def injections(result):
    return [e for e in result["trace"] if e["type"] == "injection"]
