"""Options of the command line that name a model: one in this process, or one behind an OpenAI-compatible server.

The key of a server is read from the environment only (`OPENAI_API_KEY`), so that it is in no shell history and in no
list of processes. Most servers of one's own take any key, and none has to be set for them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_KEY = "OPENAI_API_KEY"
_DEFAULT_MODEL = "embedded"

BaseURL = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help=f"An OpenAI-compatible server, such as http://localhost:8000/v1, that has --model; its key: ${_KEY}.",
    ),
]


def chat_of(model: str, base_url: str | None) -> BaseChatModel:
    """Return the chat model that the options name. Nothing is loaded or asked yet.

    Args:
        model: `--model`.
        base_url: `--base-url`, or None for a model in this process.

    Raises:
        ConfigurationError: If the address is none, no model of the server is named, langchain-openai is missing, or
            OpenAI's own server is asked without a key.
    """
    if not model.strip():
        raise ConfigurationError("--model is empty; a name, a folder or 'embedded' is needed")
    if base_url is None:
        from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel

        return LocalChatModel(model=model)
    parts = urlsplit(base_url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"--base-url is {base_url!r}; an address with http:// or https:// is needed, such as "
            "http://localhost:8000/v1"
        )
    if parts.username or parts.password:
        raise ConfigurationError(f"--base-url holds a user or a password; leave them out, and set ${_KEY} instead")
    if model == _DEFAULT_MODEL:
        raise ConfigurationError(
            f"--base-url {base_url} needs --model NAME, the name that the server has for its model"
        )
    try:
        from langchain_openai import ChatOpenAI
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"--base-url needs {error.name}: pip install 'dynprag[openai]'") from error
    from pydantic import SecretStr

    key = os.environ.get(_KEY, "").strip()
    if not key and parts.hostname.endswith("openai.com"):
        raise ConfigurationError(f"{parts.hostname} needs a key, and ${_KEY} is not set; set it in the environment")
    # Servers of one's own take any key, and the client refuses to be made without one.
    return ChatOpenAI(base_url=base_url.strip(), model=model, api_key=SecretStr(key or "none"))
