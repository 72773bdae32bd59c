"""Reading a folder of text, Markdown and JSON lines into documents, and cutting them into chunks."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_text_splitters import RecursiveCharacterTextSplitter

from rag_backbone.errors import ConfigurationError

logger = logging.getLogger(__name__)

SUFFIXES = (".txt", ".md", ".markdown", ".jsonl")
_TEXT_KEYS = ("text", "contents", "content", "page_content", "paragraph_text")


@dataclass(frozen=True, slots=True)
class Splitter:
    """How documents are cut into chunks.

    Raises:
        ConfigurationError: If the numbers do not fit together.
    """

    characters: int = 900
    """Of a chunk at most: about 200 tokens of English, what one passage of a prompt may well cost."""
    overlap: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.characters:
            raise ConfigurationError(
                f"chunks of {self.characters} characters cannot overlap by {self.overlap}; the overlap must be 0 or "
                "more and smaller than the chunk"
            )

    def split(self, document: Document) -> list[Document]:
        """Chunks of a document, each with its metadata and an id that depends on source and text alone."""
        splitter = RecursiveCharacterTextSplitter(
            chunk_size=self.characters, chunk_overlap=self.overlap, keep_separator="end"
        )
        chunks: dict[str, Document] = {}
        for text in splitter.split_text(document.page_content):
            if not text.strip():
                continue
            source = str(document.metadata.get("source", ""))
            key = hashlib.sha256(f"{source}\0{document.metadata.get('title', '')}\0{text}".encode()).hexdigest()[:32]
            chunks.setdefault(key, Document(text, id=key, metadata=document.metadata))
        return list(chunks.values())


def find_files(folder: Path) -> list[Path]:
    """The readable files of a folder, or the file itself, in a fixed order.

    Links that lead out of the folder are not followed.

    Raises:
        ConfigurationError: If there is no such folder, or nothing in it to read.
    """
    if folder.is_file():
        if folder.suffix.lower() not in SUFFIXES:
            raise ConfigurationError(f"{folder} is no {', '.join(SUFFIXES)} file")
        return [folder]
    if not folder.is_dir():
        raise ConfigurationError(f"there is no file or folder {folder}")
    root = folder.resolve()
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file() and path.resolve().is_relative_to(root)
    ]
    if not found:
        raise ConfigurationError(f"{folder} holds no documents; looked for {', '.join('*' + s for s in SUFFIXES)}")
    return found


def read_documents(path: Path, source: str) -> Iterator[Document]:
    """The documents of a file: one of a text or Markdown file, one a line of a JSON-lines file.

    Args:
        path: The file.
        source: What its documents name as their source.

    Raises:
        ConfigurationError: If a line is not JSON or has no text; the message names it.
    """
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    if "\0" in text:
        logger.warning("%s looks binary and was left out", path)
        return
    if path.suffix.lower() == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield _from_json(line, f"{source}:{number}")
    elif text.strip():
        yield Document(text, metadata={"source": source, "title": _title(text, path)})


def _from_json(line: str, source: str) -> Document:
    try:
        item: dict[str, Any] = json.loads(line)
        text = next(str(item[key]) for key in _TEXT_KEYS if item.get(key))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"{source} is no JSON object: {error}") from error
    except StopIteration:
        raise ConfigurationError(f"{source} has no text; looked for the keys {', '.join(_TEXT_KEYS)}") from None
    metadata = {"source": str(item.get("source") or item.get("url") or source), "title": str(item.get("title") or "")}
    return Document(text, metadata=metadata)


def _title(text: str, path: Path) -> str:
    """A Markdown file's first heading, or the file's name."""
    for line in text.splitlines()[:20]:
        if line.startswith("# "):
            return line[2:].strip()
    return path.stem.replace("_", " ").replace("-", " ")
