"""Prepare LangChain documents for an index: ids, plain metadata, valid text, and a report of what was left out."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from langchain_core.documents import Document

from rag_backbone.checks import shown
from rag_backbone.documents.names import source_of
from rag_backbone.errors import ConfigurationError
from rag_backbone.plain_data import plain_metadata
from rag_backbone.text.unicode import clean_text

logger = logging.getLogger(__name__)

_UNNAMED = "documents"


@dataclass(frozen=True, slots=True)
class PreparedDocuments:
    """Documents that can be stored, and a report of what could not be kept."""

    documents: tuple[tuple[str, Document], ...]
    """The documents, each with the source that it is listed under."""
    skipped: tuple[tuple[str, str], ...]
    """Name of each skipped document, and the reason."""
    notes: tuple[tuple[str, str], ...]
    """Name of each changed document, and what was changed or left out."""


def prepare_documents(documents: object, source: str | None = None) -> PreparedDocuments:
    """Prepare documents for an index; if several have the same id, the last one is kept.

    Args:
        documents: An iterable of LangChain documents.
        source: The source to list them under; None for each document's own source.

    Raises:
        ConfigurationError: If anything other than documents is given.
    """
    if isinstance(documents, Document | str) or not isinstance(documents, Iterable):
        raise ConfigurationError(f"documents is {shown(documents)}; a list of LangChain documents is needed")
    kept: dict[str, tuple[str, Document]] = {}
    skipped: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    for number, document in enumerate(documents):
        if not isinstance(document, Document):
            raise ConfigurationError(
                f"documents[{number}] is {shown(document)}; a LangChain Document is needed. For texts: "
                "index.add_texts(texts)"
            )
        own = clean_text(source_of(document.metadata), "a document's source")
        name = own or (clean_text(str(document.id), "a document's id") if document.id else f"document {number + 1}")
        text = clean_text(document.page_content, name)
        if not text.strip():
            skipped.append((name, "has no text"))
            continue
        metadata, lost = plain_metadata(document.metadata, name)
        notes += [(name, line) for line in lost]
        id_ = clean_text(str(document.id), name) if document.id else _id_of(text, metadata)
        if id_ in kept and document.id:
            notes.append((name, f"the id {id_!r} was given twice; the last document with it is kept"))
        kept[id_] = (source or own or _UNNAMED, Document(text, id=id_, metadata=metadata))
    for what, found in (("skipped", skipped), ("changed", notes)):
        if found:
            lines = "; ".join(f"{name}: {reason}" for name, reason in found[:3])
            logger.warning("%d documents or fields were %s: %s", len(found), what, lines)
    return PreparedDocuments(tuple(kept.values()), tuple(skipped), tuple(notes))


def _id_of(text: str, metadata: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps([text, metadata], sort_keys=True).encode()).hexdigest()[:32]
