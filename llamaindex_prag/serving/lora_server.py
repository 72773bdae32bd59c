"""A client for a vLLM server's runtime LoRA API, built on the `openai` client with its retries, pauses and timeouts."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_backbone.errors import ServerError
from rag_backbone.extras import needed_for
from rag_backbone.openai_errors import failure_of, garbled
from rag_backbone.text.unicode import clean_text

if TYPE_CHECKING:
    from openai import OpenAI


class LoraServer:
    """A vLLM server that loads LoRA adapters at runtime.

    Args:
        base_url: Address of the server, including `/v1`.
        api_key: None to use the environment variable `OPENAI_API_KEY`, if set.
        timeout: Timeout of a request in seconds; for streams, between two chunks.
        retries: Number of retries of a request that the server did not accept.
    """

    def __init__(self, base_url: str, *, api_key: str | None = None, timeout: float = 120.0, retries: int = 2) -> None:
        self.base_url = base_url.rstrip("/")
        self._options: dict[str, Any] = {"api_key": api_key, "timeout": timeout, "max_retries": retries}

    @cached_property
    def client(self) -> OpenAI:
        """The `openai` client, created at first use.

        Raises:
            MissingExtraError: If the `openai` package is not installed.
        """
        import os

        with needed_for("a model in a server"):
            from openai import OpenAI
        key = self._options["api_key"] or os.environ.get("OPENAI_API_KEY") or "none"
        return OpenAI(base_url=self.base_url, **{**self._options, "api_key": key})

    @property
    def name(self) -> str:
        """Name of the server for messages."""
        return f"the server at {self.base_url}"

    def models(self) -> list[Any]:
        """Return what the server lists: base models, and loaded adapters (which have a `parent`).

        Raises:
            ServerError: If the server cannot be reached, or does not speak this protocol.
        """
        try:
            return list(self.client.models.list())
        except Exception as error:
            raise self.explained(error) from error

    def adapters(self) -> dict[str, str]:
        """Return the names of the loaded adapters with their folders as the server sees them."""
        return {c.id: str(getattr(c, "root", "")) for c in self.models() if getattr(c, "parent", None)}

    def load(self, name: str, folder: str | Path) -> None:
        """Load an adapter. Idempotent: an adapter that is already loaded stays.

        Raises:
            ServerError: If the server rejects the adapter, or cannot see the folder.
        """
        try:
            self._post("/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        except Exception as error:
            failure = failure_of(error)
            if failure is not None and failure.status == 400 and "already been loaded" in str(error):
                return
            if failure is not None and failure.status == 404 and "No adapter found" in str(error):
                raise ServerError(
                    f"{self.name} finds no adapter at {folder}. The server reads the folder itself: name a folder that "
                    "it can see (folder=...), and if its path there is different, that path too (server_folder=...)."
                ) from error
            if failure is not None and failure.status in (404, 405):
                raise ServerError(
                    f"{self.name} does not load adapters at runtime (HTTP {failure.status}); start vLLM with "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora."
                ) from error
            raise self.explained(error) from error

    def unload(self, name: str) -> None:
        """Unload an adapter. Idempotent: an adapter that is not loaded is ignored.

        Raises:
            ServerError: If the server fails or cannot be reached.
        """
        try:
            self._post("/unload_lora_adapter", {"lora_name": name})
        except Exception as error:
            failure = failure_of(error)
            if failure is None or failure.status != 404:
                raise self.explained(error) from error

    def tokenised(self, text: str) -> list[int] | None:
        """Return the server's token IDs of a text, without special tokens; None if it has no such endpoint."""
        # vLLM serves this path next to `/v1`, not under it.
        url = f"{self.base_url.removesuffix('/v1')}/tokenize"
        try:
            found: Any = self.client.post(
                url,
                cast_to=object,
                body={"prompt": clean_text(text, "a text for the model"), "add_special_tokens": False},
            )
        except Exception as error:
            if failure_of(garbled(error)) is None:
                raise
            return None
        return list(found["tokens"]) if isinstance(found, dict) and "tokens" in found else None

    def explained(self, error: Exception) -> Exception:
        """Translate a client error caused by the server into this package's error; return any other error as is."""
        failure = failure_of(garbled(error))
        return error if failure is None else failure.explained(self.name)

    def _post(self, path: str, body: dict[str, Any]) -> str:
        return self.client.post(path, cast_to=str, body=body)

    def __repr__(self) -> str:
        return f"LoraServer({self.base_url!r})"
