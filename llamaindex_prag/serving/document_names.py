"""Model names that encode a set of documents, so that a server can find and merge their adapters.

    prag:<payload>[.<signature>]      payload, base64url of

    version 1 | recipe 32 | orthogonal 1 | store's change counter 8 | count 1 | count x (text hash 32, weight 8)

Knowing a text's hash requires knowing the text. If that is not enough, client and server share a secret and names carry
an HMAC-SHA-256 (128 bits), so that no other client can name a set at all. Needs only the standard library.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import struct
from dataclasses import dataclass

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import AdapterKey
from rag_backbone.errors import AdapterError, ConfigurationError

PREFIX = "prag:"
_VERSION = 1
_HEAD = struct.Struct(">B32s?QB")
_MEMBER = struct.Struct(">32sd")
_SIGNATURE = 16
LEAST_SECRET = 16
"""Minimum length of a secret in bytes."""


class DocumentNameError(AdapterError):
    """Raised for a model name with the prefix of a document set that is damaged or not signed with the secret."""


@dataclass(frozen=True, slots=True)
class DocumentSet:
    """A set of documents' adapters, identified by recipe and texts, independently of the model's fingerprint."""

    recipe: str
    texts: tuple[str, ...]
    """`text_hash` of each passage."""
    weights: tuple[float, ...]
    orthogonal: bool = False
    version: int = 0
    """The store's change counter, so that replaced values get a different name."""

    @classmethod
    def of(cls, selection: ActiveAdapters) -> DocumentSet:
        """Build the document set of active adapters that all have the same recipe.

        Raises:
            ConfigurationError: If the recipes differ.
        """
        if len(recipes := {key.recipe for key in selection.keys}) != 1:
            raise ConfigurationError(f"a name stands for adapters of one recipe; these are of {len(recipes)} recipes")
        texts = tuple(key.text for key in selection.keys)
        return cls(recipes.pop(), texts, selection.weights, selection.orthogonal, selection.version)

    def selection(self, model: str) -> ActiveAdapters:
        """Return the active adapters for the model with this fingerprint."""
        keys = tuple(AdapterKey(model, self.recipe, text) for text in self.texts)
        return ActiveAdapters(keys, self.weights, self.orthogonal, self.version)

    def name(self, secret: bytes | None = None) -> str:
        """Return the model name for requests to the server.

        Args:
            secret: Secret shared with the server; None for an unsigned name.
        """
        payload = _HEAD.pack(_VERSION, bytes.fromhex(self.recipe), self.orthogonal, self.version, len(self.texts))
        payload += b"".join(_MEMBER.pack(bytes.fromhex(t), w) for t, w in zip(self.texts, self.weights, strict=True))
        signature = "" if secret is None else f".{_encoded(_signature(payload, secret))}"
        return f"{PREFIX}{_encoded(payload)}{signature}"

    @classmethod
    def parse(cls, name: str, secret: bytes | None = None) -> DocumentSet:
        """Decode a name.

        Args:
            name: Model name that starts with `PREFIX`.
            secret: If given, the name must be signed with it.

        Raises:
            DocumentNameError: If the name is damaged, or not signed with the secret.
        """
        encoded, _, signature = name.removeprefix(PREFIX).partition(".")
        payload = _decoded(encoded)
        if secret is not None and not hmac.compare_digest(_decoded(signature), _signature(payload, secret)):
            raise DocumentNameError("the name of a document set is not signed with this server's secret")
        try:
            version, recipe, orthogonal, changes, count = _HEAD.unpack_from(payload)
            members = [_MEMBER.unpack_from(payload, _HEAD.size + i * _MEMBER.size) for i in range(count)]
        except struct.error as error:
            raise DocumentNameError(f"the name of a document set is damaged: {error}") from error
        if version != _VERSION or not count or len(payload) != _HEAD.size + count * _MEMBER.size:
            raise DocumentNameError(
                f"the name of a document set has version {version} with {count} documents in {len(payload)} bytes; "
                f"this release reads version {_VERSION}"
            )
        weights = tuple(float(w) for _, w in members)
        if not all(math.isfinite(w) and 0 <= w <= _LARGEST_WEIGHT for w in weights):
            raise DocumentNameError(f"the name of a document set has the weights {weights}; they must be from 0 to 100")
        return cls(recipe.hex(), tuple(text.hex() for text, _ in members), weights, orthogonal, changes)


_LARGEST_WEIGHT = 100.0


def checked_secret(secret: str | bytes | None) -> bytes | None:
    """Return the secret as bytes; None stays None.

    Raises:
        ConfigurationError: If the secret is shorter than `LEAST_SECRET` bytes.
    """
    if secret is None:
        return None
    found = secret.encode() if isinstance(secret, str) else secret
    if len(found) < LEAST_SECRET:
        raise ConfigurationError(f"the secret has {len(found)} bytes; at least {LEAST_SECRET} are needed")
    return found


def _signature(payload: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, payload, hashlib.sha256)[:_SIGNATURE]


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentNameError(f"the name of a document set is damaged: {error}") from error
