"""The example's documents, searched by BM25: ready at once, for the shorter examples."""

import json
from pathlib import Path

from langchain_core.documents import Document

from langgraph_dynrag.retrieval import BM25Retriever

DATA = Path(__file__).parent / "data" / "corpus.jsonl"


def example_retriever(k: int = 2) -> BM25Retriever:
    """A retriever over all of them."""
    items = map(json.loads, DATA.read_text("utf-8").splitlines())
    documents = [Document(i["text"], id=i["title"], metadata={"title": i["title"]}) for i in items]
    return BM25Retriever.from_documents(documents, k=k)
