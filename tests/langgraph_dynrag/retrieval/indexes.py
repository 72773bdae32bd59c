"""Indexes with arbitrary vectors, and what they hold."""

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from pydantic import Field

from langgraph_dynrag.retrieval import LocalIndex


class CountedEmbeddings(DeterministicFakeEmbedding):
    """Arbitrary vectors; records the embedded texts, because these tests check which texts are embedded."""

    texts: list[str] = Field(default_factory=list)

    def embed_documents(self, texts):
        self.texts.extend(texts)
        return super().embed_documents(texts)


def make_index(tmp_path, **options):
    return LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8), **options)


def texts(index, query="the", k=50):
    return {d.page_content for d in index.as_retriever("dense", k=k).invoke(query)}


KINDS = ("dense", "bm25", "hybrid")


def all_texts(index, query="xylobridge river bees Tamsin"):
    if not len(index):
        return set()
    return {kind: {d.page_content for d in index.as_retriever(kind, k=50).invoke(query)} for kind in KINDS}


def on_disk(index, word):
    """Return the names of the index's files that contain a word.

    Chroma's vector file is left out, because its unused parts may contain arbitrary memory of this process.
    """
    files = [p for p in index.folder.rglob("*") if p.is_file() and p.name != "data_level0.bin"]
    return [p.name for p in files if word.encode() in p.read_bytes().lower()]


def loaded():
    """Return documents as LangChain's loaders produce them."""
    return [
        Document("Page one of the report on bees.", metadata={"source": "report.pdf", "page": 0}),
        Document("Page two of the report on wasps.", metadata={"source": "report.pdf", "page": 1}),
        Document("A letter about ants.", id="letter-7", metadata={"source": "https://example.org/letters/7"}),
    ]
