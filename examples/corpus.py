"""The example documents behind a BM25 retriever, which needs no stored index; used by the shorter examples."""

from pathlib import Path

from langchain_core.documents import Document

from langgraph_dynrag import BM25Retriever
from rag_backbone import read_json_lines

DATA = Path(__file__).parent / "data" / "corpus.jsonl"


def example_retriever(k: int = 2) -> BM25Retriever:
    """Return a BM25 retriever over all example documents, with `k` passages per search."""
    rows = read_json_lines(DATA)
    documents = [Document(d["text"], id=d["title"], metadata={"title": d["title"]}) for _, d in rows]
    return BM25Retriever.from_documents(documents, k=k)
