"""Keeps augmentations in a store, so that no document is augmented twice by the same augmenter."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from typing import Any, Protocol

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.augment.augmentation import Augmentation
from rag_backbone.errors import ConfigurationError

logger = logging.getLogger(__name__)

TABLE = "augmentations"


class JSONCache(Protocol):
    """Storage for augmentations, such as an adapter store."""

    def get_json(self, table: str, key: str) -> Any | None:
        """Return the value stored under a key, or None."""

    def put_json(self, table: str, key: str, value: Any) -> None:
        """Store a value under a key."""


def kept(cache: JSONCache, key: str, title: str, text: str) -> Augmentation | None:
    """Return a document's stored augmentation, or None; one that is damaged is logged and counts as missing.

    Args:
        cache: The storage.
        key: The augmenter's key.
        title: The document's title.
        text: The document's text.
    """
    if (data := cache.get_json(TABLE, _place(key, title, text))) is None:
        return None
    try:
        return Augmentation.from_dict(data)
    except ConfigurationError as error:
        logger.warning("the cached augmentation of %r is damaged and will be generated again: %s", title, error)
        return None


def keep(cache: JSONCache, key: str, title: str, text: str, augmentation: Augmentation) -> None:
    """Store a document's augmentation under its augmenter's key."""
    cache.put_json(TABLE, _place(key, title, text), augmentation.to_dict())


def entries(cache: JSONCache, key: str, documents: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """Return the stored data of (title, text) pairs by (table, key), to be sent to a cache in another process."""
    places = [_place(key, title, text) for title, text in documents]
    found = {(TABLE, place): cache.get_json(TABLE, place) for place in places}
    return {place: data for place, data in found.items() if data is not None}


def hash_of(value: Any) -> str:
    """Return the SHA-256 of JSON data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _place(key: str, title: str, text: str) -> str:
    # Starts with the text's hash, so that a store that removes the text removes its questions too.
    return f"{text_hash(text)}/{hash_of([key, title.strip()])}"
