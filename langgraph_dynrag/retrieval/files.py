"""Documents of files as LangChain knows them, and cutting them into chunks."""

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
    """How documents are cut into chunks.

    Raises:
        ConfigurationError: If the numbers do not fit together.
    """

    characters: int = 900
    """Of a chunk at most: about 200 tokens of English, what one passage of a prompt may well cost."""
    overlap: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.characters:
            raise ConfigurationError(
                f"chunks of {self.characters} characters cannot overlap by {self.overlap}; the overlap must be 0 or "
                "more and smaller than the chunk"
            )

    def split(self, document: Document) -> list[Document]:
        """Return the chunks of a document, each with its metadata and an id that depends on text and metadata alone."""
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
    """Return what was read from a file as LangChain's document; source and title are part of its metadata."""
    return Document(read.text, metadata={**read.metadata, "source": read.source, "title": read.title})
