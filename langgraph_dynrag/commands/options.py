"""Options that several commands share: index, preset, search, output, and the model.

The model runs in this process or behind an OpenAI-compatible server. The server's key is read from the environment only
(`OPENAI_API_KEY`), so that it appears in no shell history and no process list. Self-hosted servers mostly accept any
key, so none has to be set for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from langgraph_dynrag.presets.file import is_preset_file
from langgraph_dynrag.presets.methods import PRESETS, Preset, get_preset
from langgraph_dynrag.triggers.rind import Bundle
from langgraph_dynrag.triggers.threshold import with_threshold
from rag_backbone.console import be_quiet, given_path
from rag_backbone.errors import ConfigurationError
from rag_backbone.extras import needed_for

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_KEY = "OPENAI_API_KEY"
_DEFAULT_MODEL = "embedded"
DEFAULT_INDEX = Path(".dynprag/index")
DEFAULT_STORE = Path(".dynprag/adapters")
Search = Literal["hybrid", "dense", "bm25"]

IndexFolder = Annotated[
    Path, typer.Option("--index", "-i", help="The index's folder.", parser=given_path, metavar="FOLDER")
]
Model = Annotated[str, typer.Option(help="'embedded', a folder, a Hub id; or a server's model.")]
BundleOption = Annotated[Bundle, typer.Option(help="The form of dragin, etc and seakr.")]
SearchOption = Annotated[Search, typer.Option("--retriever", help="How to search.")]


def quiet_if(wanted: bool) -> bool:
    """Silence everything but the result as soon as the option is read."""
    be_quiet(wanted=wanted)
    return wanted


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.", callback=quiet_if, is_eager=True)]


def known_preset(name: str | None) -> str | None:
    """Return the name of a preset or preset file; refuse another as Typer refuses an unknown choice."""
    if name is None or name in PRESETS or is_preset_file(name):
        return name
    raise typer.BadParameter(f"{name!r} is none of {', '.join(PRESETS)}, and no preset file (.json).")


PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help=f"The method: {', '.join(PRESETS)}, or a file of `dynprag calibrate`. Default: flare, or single with "
        "--injection.",
        callback=known_preset,
        metavar="NAME|FILE",
    ),
]

BaseURL = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help=f"An OpenAI-compatible server, such as http://localhost:8000/v1, that has --model; its key: ${_KEY}.",
    ),
]

Passages = Annotated[int | None, typer.Option("--k", min=1, help="Passages per search; default: the preset's.")]
Threshold = Annotated[float | None, typer.Option(help="The trigger's threshold; default: the preset's.")]
MaxRetrievals = Annotated[int | None, typer.Option(help="Maximum number of searches.")]
MaxTokens = Annotated[int | None, typer.Option(help="Maximum number of tokens of the answer.")]
MaxSeconds = Annotated[float | None, typer.Option(help="Maximum number of seconds.")]


def method_of(
    name: str,
    bundle: Bundle,
    *,
    k: int | None = None,
    threshold: float | None = None,
    **limits: float | None,
) -> tuple[Preset, dict[str, Any]]:
    """Return the preset that the options name, and the options of the graph that replace parts of it.

    Args:
        name: `--preset`.
        bundle: `--bundle`.
        k: `--k`, or None for the preset's.
        threshold: `--threshold`, or None for the preset's.
        **limits: Budgets by name; None for the preset's.

    Raises:
        ConfigurationError: If the preset has no threshold, or a value is out of range.
    """
    method = get_preset(name, bundle=bundle)
    options: dict[str, Any] = {} if k is None else {"k": k}
    if threshold is not None:
        options["trigger"] = with_threshold(method.settings["trigger"], threshold)
    given: dict[str, Any] = {limit: value for limit, value in limits.items() if value is not None}
    options["budgets"] = replace(method.settings["budgets"], **given)
    return method, options


def refuse_given(options: Mapping[str, object], why: str) -> None:
    """Refuse those of some options that were given, which is those that are not None.

    Raises:
        ConfigurationError: Naming them.
    """
    if named := [option for option, value in options.items() if value is not None]:
        raise ConfigurationError(f"{', '.join(named)}: {why}")


def chat_of(model: str, base_url: str | None) -> BaseChatModel:
    """Return the chat model that the options name. Nothing is loaded or requested yet.

    Args:
        model: `--model`.
        base_url: `--base-url`, or None for a model in this process.

    Raises:
        ConfigurationError: If the address is malformed, the server's model is not named, langchain-openai is missing,
            or OpenAI's own server is called without a key.
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
            f"--base-url {base_url} needs --model NAME, the name under which the server offers its model"
        )
    with needed_for("--base-url"):
        from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    key = os.environ.get(_KEY, "").strip()
    if not key and parts.hostname.endswith("openai.com"):
        raise ConfigurationError(f"{parts.hostname} needs a key, and ${_KEY} is not set; set it in the environment")
    # Self-hosted servers accept any key, and the client refuses to be created without one.
    return ChatOpenAI(base_url=base_url.strip(), model=model, api_key=SecretStr(key or "none"))
