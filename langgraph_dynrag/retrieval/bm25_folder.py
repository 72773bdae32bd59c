"""The BM25 index of a `LocalIndex` on disk, in a folder named after a hash of the indexed content."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from langchain_core.documents import Document

from langgraph_dynrag.retrieval.bm25 import TERMS_VERSION, BM25Retriever
from langgraph_dynrag.retrieval.chroma_folder import is_writable
from langgraph_dynrag.retrieval.manifest import Manifest
from rag_backbone.errors import ConfigurationError

logger = logging.getLogger(__name__)


def load_or_build(index_folder: Path, manifest: Manifest, documents: Sequence[Document]) -> BM25Retriever | None:
    """Return the BM25 index of these documents, or None if none contains a word; store it if the folder is writable."""
    target = _folder(index_folder, manifest)
    if target.is_dir():
        try:
            return BM25Retriever.load(target, documents)
        except Exception as error:  # noqa: BLE001 - another process has just replaced it, or it is damaged
            logger.info("%s cannot be loaded (%s); it will be rebuilt", target, error)
    try:
        built = BM25Retriever.from_documents(documents)
    except ConfigurationError as error:
        logger.warning("%s: BM25 finds nothing: %s", index_folder, error)
        return None
    if is_writable(index_folder):
        try:
            _store(built, target)
            drop_old(index_folder, manifest)
        except OSError as error:
            logger.warning("%s cannot be stored: %s; it will be rebuilt when it is next needed", target, error)
    return built


def drop_old(index_folder: Path, manifest: Manifest) -> None:
    """Delete BM25 indexes of earlier contents, which hold words of documents that may have been deleted."""
    current = _folder(index_folder, manifest)
    for old in [*index_folder.glob("bm25-*"), *index_folder.glob(".bm25-*")]:
        if old != current:
            shutil.rmtree(old, ignore_errors=True)


def _store(built: BM25Retriever, target: Path) -> None:
    with FileLock(target.with_name("bm25.lock")):
        building = target.with_name(f".{target.name}")
        shutil.rmtree(building, ignore_errors=True)
        built.save(building)
        shutil.rmtree(target, ignore_errors=True)
        building.replace(target)


def _folder(index_folder: Path, manifest: Manifest) -> Path:
    # A document's text can change while its id stays the same.
    changing = sorted((key, entry["sha256"]) for key, entry in manifest.documents.items())
    content = json.dumps([TERMS_VERSION, manifest.chunk_ids(), changing])
    return index_folder / f"bm25-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
