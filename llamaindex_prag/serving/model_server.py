"""A client for a server that speaks OpenAI's protocol, built on the `openai` client's retries, pauses and timeouts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rag_backbone.errors import ConfigurationError, ServerError
from rag_backbone.extras import needed_for
from rag_backbone.openai_errors import failure_of, garbled
from rag_backbone.text.unicode import clean_text

if TYPE_CHECKING:
    from openai import OpenAI


class ModelServer:
    """A model server.

    Args:
        base_url: Address of the server, including `/v1`.
        api_key: None to use the environment variable `OPENAI_API_KEY`, if set.
        timeout: Timeout of a request in seconds; for streams, between two chunks.

    Raises:
        ConfigurationError: If the address is malformed, or holds a user or a password.
    """

    def __init__(self, base_url: str, *, api_key: str | None = None, timeout: float = 120.0) -> None:
        self.base_url = _checked(base_url).rstrip("/")
        self._options: dict[str, Any] = {"api_key": api_key, "timeout": timeout}

    @cached_property
    def client(self) -> OpenAI:
        """The `openai` client, created at first use.

        Raises:
            MissingExtraError: If the `openai` package is not installed.
            ConfigurationError: If the key cannot stand in a header, such as one with a line break.
        """
        import os

        with needed_for("a model in a server"):
            from openai import OpenAI
        key = self._options["api_key"] or os.environ.get("OPENAI_API_KEY") or "none"
        if not (key.isascii() and key.isprintable()):
            raise ConfigurationError(
                f"the API key for {self.name} has characters that are not printable ASCII, such as a line break at its "
                "end; pass the key alone (api_key=, or OPENAI_API_KEY)"
            )
        return OpenAI(base_url=self.base_url, **{**self._options, "api_key": key})

    @property
    def name(self) -> str:
        """Name of the server for messages."""
        return f"the server at {self.base_url}"

    @property
    def root_url(self) -> str:
        """Address of what the server offers beside OpenAI's protocol, without `/v1`."""
        return self.base_url.removesuffix("/v1")

    def models(self) -> list[Any]:
        """Return the models that the server lists.

        Raises:
            ServerError: If the server cannot be reached, or does not speak this protocol.
        """
        try:
            return list(self.client.models.list())
        except Exception as error:
            if getattr(error, "status_code", None) == 404:
                raise ServerError(f"{self.name} has no /models; does the address end in /v1, as most do?") from error
            raise self.explained(error) from error

    @staticmethod
    def is_llamacpp(models: Sequence[Any]) -> bool:
        """Return whether a server that lists these models is llama.cpp's, which names itself as their owner."""
        return any(getattr(model, "owned_by", None) == "llamacpp" for model in models)

    def tokenised(self, text: str) -> list[int] | None:
        """Return the server's token IDs of a text, without special tokens; None if it has no such endpoint."""
        body = self._to_tokenise(clean_text(text, "a text for the model"))
        try:
            found: Any = self.client.post(f"{self.root_url}/tokenize", cast_to=object, body=body)
        except Exception as error:
            if failure_of(garbled(error)) is None:
                raise
            return None
        return list(found["tokens"]) if isinstance(found, dict) and "tokens" in found else None

    def _to_tokenise(self, text: str) -> dict[str, Any]:
        """Return the request that asks for a text's tokens."""
        return {"prompt": text, "add_special_tokens": False}

    def explained(self, error: Exception) -> Exception:
        """Translate a client error caused by the server into this package's error; return any other error as is."""
        failure = failure_of(garbled(error))
        return error if failure is None else failure.explained(self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"


def _checked(base_url: str) -> str:
    if "@" in base_url.rpartition("://")[2].partition("/")[0]:  # messages and serialised objects repeat the address
        raise ConfigurationError("the server's address holds a user or a password; leave them out, and pass api_key=")
    try:
        parts = urlsplit(base_url)
        complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        complete = False
    if not complete:
        raise ConfigurationError(
            f"the server's address is {base_url!r}; one with http:// or https:// is needed, such as "
            "http://localhost:8000/v1"
        )
    return base_url
