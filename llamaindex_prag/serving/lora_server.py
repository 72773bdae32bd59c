"""A client for a vLLM server's runtime LoRA API, built on the `openai` client with its retries, pauses and timeouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llamaindex_prag.serving.model_server import ModelServer
from rag_backbone.errors import ServerError
from rag_backbone.openai_errors import failure_of


class LoraServer(ModelServer):
    """A vLLM server that loads LoRA adapters at runtime; it lists loaded adapters as models with a `parent`."""

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

    def _post(self, path: str, body: dict[str, Any]) -> str:
        return self.client.post(path, cast_to=str, body=body)
