"""Convert files that were read to LangChain documents, and split documents into chunks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from langchain_core.documents import Document

from langgraph_dynrag.clean_input import clean_models
from langgraph_dynrag.retrieval.chunking import split_text
from rag_backbone.documents import ReadDocument
from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Splitter:
    """Splits documents into chunks.

    Raises:
        ConfigurationError: If the overlap is negative or not smaller than the chunk.
    """

    characters: int = 900
    """Maximum characters of a chunk; 900 are about 200 tokens of English, a reasonable size for a passage."""
    overlap: int = 100
    """Maximum characters that a chunk shares with the next one."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.characters:
            raise ConfigurationError(
                f"chunks of {self.characters} characters cannot overlap by {self.overlap}; the overlap must be 0 or "
                "more and smaller than the chunk"
            )

    def split(self, document: Document) -> list[Document]:
        """Return the chunks of a document, each with its metadata and an id derived only from text and metadata."""
        document = clean_models(document, "a document")
        about = json.dumps(document.metadata, sort_keys=True, default=str)
        chunks: dict[str, Document] = {}
        for text in split_text(document.page_content, self.characters, self.overlap):
            if not text.strip():
                continue
            key = hashlib.sha256(f"{about}\0{text}".encode()).hexdigest()[:32]
            chunks.setdefault(key, Document(text, id=key, metadata=document.metadata))
        return list(chunks.values())


def as_document(read: ReadDocument) -> Document:
    """Convert a document read from a file to a LangChain document, with source and title in its metadata."""
    return Document(read.text, metadata={**read.metadata, "source": read.source, "title": read.title})
