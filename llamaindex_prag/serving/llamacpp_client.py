"""A client for the part of llama.cpp's HTTP interface that is not OpenAI's: loaded adapters, tokens in and out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from llamaindex_prag.serving.model_server import ModelServer
from rag_backbone.errors import ServerError
from rag_backbone.openai_errors import garbled

if TYPE_CHECKING:
    from openai import Stream


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a llama.cpp server says about itself."""

    model: str
    """The model's name."""
    file: str
    """Path of the model's GGUF file, as the server sees it."""
    context_window: int
    """Maximum number of tokens of prompt and answer together."""
    quantisation: str
    """The type of most weights, such as `"Q4_1"`; empty if the server does not say."""


class LlamaCppClient(ModelServer):
    """A `llama-server`, or the one that `LlamaCppServer` runs."""

    def facts(self) -> ServerFacts:
        """Ask the server about its model.

        Raises:
            ServerError: If the server cannot be reached, or is not llama.cpp's.
        """
        try:
            props = self._get("/props")
        except Exception as error:
            raise self.explained(garbled(error)) from error
        try:
            window = int(props["default_generation_settings"]["n_ctx"])
            file = str(props["model_path"])
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"{self.name} does not describe itself as llama.cpp's server does: {error!r}") from error
        card = next(iter(self.models()), None)
        meta = getattr(card, "meta", None) or {}
        return ServerFacts(
            model=str(getattr(card, "id", "") or PurePath(file).stem),
            file=file,
            context_window=window,
            quantisation=str(props.get("model_ftype") or meta.get("ftype") or ""),
        )

    def adapters(self) -> dict[str, int]:
        """Return the file names of the loaded adapters, with the numbers that requests use.

        The client's own errors are not translated: this is part of a request that may be made again.

        Raises:
            ServerError: If the server is not llama.cpp's.
        """
        found = self._get("/lora-adapters")
        try:
            return {PurePath(entry["path"]).name: int(entry["id"]) for entry in found}
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"{self.name} does not list adapters as llama.cpp's server does: {error!r}") from error

    def stream(self, body: dict[str, Any]) -> Stream[Any]:
        """Send a request to `/completion` and return its events."""
        from openai import Stream

        return self.client.post(
            f"{self.root_url}/completion", cast_to=object, body={**body, "stream": True}, stream=True,
            stream_cls=Stream[object],
        )  # fmt: skip

    def _to_tokenise(self, text: str) -> dict[str, Any]:
        return {"content": text, "add_special": False}

    def _get(self, path: str) -> Any:
        try:
            return self.client.get(f"{self.root_url}{path}", cast_to=object)
        except Exception as error:
            if getattr(error, "status_code", None) == 404:
                raise ServerError(
                    f"{self.name} has no {path}, as a llama.cpp server has; is it one, and does the address end in /v1?"
                ) from error
            raise
