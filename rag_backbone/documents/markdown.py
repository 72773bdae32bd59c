"""Markdown: YAML or TOML front matter as metadata, and the first heading as title."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rag_backbone.documents.decoding import decode, newlines
from rag_backbone.documents.pieces import Extract, Note

_FENCES = {"---": ("---", "..."), "+++": ("+++",)}
_SEARCHED = 65_536  # characters: a later heading is not a title


def read_markdown(path: Path, encoding: str | None) -> Iterator[Extract | Note]:
    """Read a Markdown file as one document."""
    text = newlines(decode(path.read_bytes(), encoding))
    found = front_matter(text)
    if found.problem:
        yield Note("", found.problem)
    fields = found.fields
    if "title" not in fields and (title := first_heading(found.after)):
        fields = {**fields, "title": title}
    yield Extract(text if found.problem else found.after, fields)


class FrontMatter(NamedTuple):
    """The header of a Markdown text."""

    fields: dict[str, Any]
    after: str
    """The text after the front matter."""
    problem: str = ""
    """Why the front matter could not be read, if so."""


def front_matter(text: str) -> FrontMatter:
    r"""Separate the front matter, if there is any, from a text with `\n` as line end."""
    first, _, rest = text.partition("\n")
    ends = _FENCES.get(first.rstrip())
    if ends is None:
        return FrontMatter({}, text)
    lines = rest.split("\n")
    end = next((i for i, line in enumerate(lines) if line.rstrip() in ends), None)
    if end is None:
        opened = bool(lines[0].partition(":")[1]) and not lines[0].startswith((" ", "#"))
        return FrontMatter({}, text, "its front matter is not closed and was kept as text" if opened else "")
    block, after = "\n".join(lines[:end]), "\n".join(lines[end + 1 :]).lstrip("\n")
    try:
        fields = _toml(block) if ends == ("+++",) else _yaml(block)
    except ValueError as error:
        return FrontMatter({}, after, f"its front matter was kept as text: {error}")
    # A block without fields is text between two thematic breaks.
    return FrontMatter({}, text) if fields is None else FrontMatter(fields, after)


def first_heading(text: str) -> str:
    """Return the text of the first heading, `#` or underlined; `""` if there is none.

    Text that only looks like a heading, in a code block, a quotation or a list, does not count.
    """
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").parse(text[:_SEARCHED])
    for token, inline in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0:
            parts = inline.children or []
            title = "".join(" " if part.type.endswith("break") else part.content for part in parts).strip()
            if title:
                return title
    return ""


def _toml(block: str) -> dict[str, Any]:
    return tomllib.loads(block)


def _yaml(block: str) -> dict[str, Any] | None:
    """Return the fields of a YAML block; None if it does not contain a mapping.

    Raises:
        ValueError: If the block cannot be read.
    """
    import yaml

    try:
        # A few nested aliases could exhaust the memory.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(block, yaml.SafeLoader)):
            raise ValueError("it has YAML aliases")
        fields = yaml.safe_load(block)
        as_written = yaml.load(block, yaml.BaseLoader)  # noqa: S506 - knows strings only
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 2})" if error.problem_mark else ""
        raise ValueError(f"{error.problem}{line}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        return None
    found = {str(name): value for name, value in fields.items()}
    if "title" in found and isinstance(as_written["title"], str):
        found["title"] = as_written["title"]  # keep titles such as "No" and 1984 as text
    return found
