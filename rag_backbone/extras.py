"""Packages that belong to an extra: if one is missing, the error says what to install."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rag_backbone.errors import MissingExtraError

EXTRAS = {
    "torch": "local",
    "transformers": "local",
    "accelerate": "local",
    "gguf": "local",
    "langgraph": "langgraph",
    "langchain_core": "langgraph",
    "langchain_text_splitters": "langgraph",
    "chromadb": "langgraph",
    "langchain": "agents",
    "langchain_classic": "eval",
    "ragas": "ragas",
    "langchain_community": "ragas",
    "sklearn": "learned",
    "llama_index": "llamaindex",
    "lmdb": "prag",
    "safetensors": "prag",
    "textblob": "prag",
    "lemminflect": "prag",
    "xxhash": "prag",
    "fsspec": "objectstore",
    "s3fs": "objectstore",
    "openai": "openai",
    "langchain_openai": "openai",
    "tenacity": "openai",
    "llguidance": "structured",
    "peft": "peft",
    "ray": "ray",
    "xllamacpp": "llamacpp",
    "typer": "cli",
    "rich": "cli",
    "mcp": "mcp",
    "matplotlib": "viz",
    "opentelemetry": "tracing",
    "openinference": "tracing",
    "bs4": "files",
    "pypdf": "files",
    "docx": "files",
    "pyarrow": "parquet",
}
"""Top-level module to the extra that brings it."""


@contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Name the extra if an import within the block fails because a package is not installed.

    Args:
        what: What needs the package, for the message: `"a model in this process"`.

    Raises:
        MissingExtraError: Naming the package and the line that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingExtraError(
            f"{what} needs {error.name}, which is not installed: pip install 'dynprag[{extra}]'", name=error.name
        ) from error


def naming_extras(package: str, getter: Callable[[str], Any]) -> Callable[[str], Any]:
    """Wrap a package's `__getattr__` so that a name whose dependencies are missing says which extra to install."""

    def __getattr__(name: str) -> Any:  # noqa: N807
        with needed_for(f"{package}.{name}"):
            return getter(name)

    return __getattr__
