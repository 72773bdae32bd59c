"""Search results condensed by the model before they are inserted: Search-o1's Reason-in-Documents.

Li et al. 2025, section 3.4 and appendix A.1. In a second call, the model sees the reasoning so far, the query and the
documents found. It goes through the documents and states which facts help; only those are inserted at the point where
the model continues. This module holds the settings, the prompt and the parser of the reply: pure functions that know no
models or states. The wording is our own.

Of the reasoning, the model sees the first step, the last four, and the steps with a search or its results. A step is a
line; a block inserted after a search counts as one. This follows the publication with two exceptions. A reply without
the requested heading is used as a whole (the published code treats it as nothing found), because small models leave the
heading out. Calls and results belong to the steps of their search, however many lines they have.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from langgraph_dynrag.evidence import CountTokens, clean
from langgraph_dynrag.method import Method
from langgraph_dynrag.search_tags.formats import TagFormat
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import Bounds, check_fields

NOTHING = "No helpful information found."
_HEADING = "Helpful information:"
_HEADINGS = re.compile(r"(?<!no )helpful information\**\s*:", re.IGNORECASE)
# The opening mark may stand in the model's prompt, and the closing mark may be missing.
_THOUGHTS = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL | re.IGNORECASE)
# Must match the whole reply, because anything longer may be a fact.
_NO = re.compile(r"(no helpful information( [\w']+){0,6}|none|nothing)\W*\Z", re.IGNORECASE)
_LAST = 4

_PROMPT = """\
A question is being answered step by step, with searches in between. These are the steps so far, the query of the last \
search, and the documents that it found.

Steps so far:
{steps}

Query: {query}

Documents:
{documents}

Go through the documents one by one: what does each of them say about the query, and does it bring the steps further? \
Then write "{heading}" and after it, in a few sentences, the facts that do, as the documents state them and nothing \
else. If there are none, write "{heading} {nothing}"\
"""


class Finding(NamedTuple):
    """The facts that a reply extracts from the documents."""

    text: str
    """The facts in one line."""
    helpful: bool


@dataclass(frozen=True, slots=True)
class ReasonInDocuments:
    """Has the model extract the helpful facts from the documents found, and inserts those instead of the documents.

    For formats in which the model writes searches (`WrittenTag`). The documents shown to the model are limited by
    `context_tokens`, as they would be if inserted directly. If the call fails or returns nothing, the documents
    themselves are inserted.

    Args:
        tokens: Maximum length of the reply, its discussion of the documents included.
        steps_tokens: Maximum length of the steps so far.

    Raises:
        ConfigurationError: If a number is less than 16.
    """

    tokens: Annotated[int, Bounds(least=16)] = 512
    steps_tokens: Annotated[int, Bounds(least=16)] = 1024

    def __post_init__(self) -> None:
        check_fields(self)

    def check_with(self, settings: Method) -> None:
        """Refuse methods that insert nothing that could be condensed.

        Raises:
            ConfigurationError: If the trigger's results are not inserted into the text.
        """
        if settings.tag_format is None:
            raise ConfigurationError(
                f"digest condenses what is inserted after a search that the model writes, but {settings.trigger} "
                "inserts nothing. Use trigger=WrittenTag(...), as preset='search_o1' does, or digest=None."
            )

    def prompt(self, steps: str, query: str, documents: str) -> str:
        """Return the prompt for the model."""
        # Inserted texts are not scanned for placeholders again.
        texts = {
            "steps": steps,
            "query": query,
            "documents": documents,
            "heading": _HEADING,
            "nothing": NOTHING,
        }
        return re.sub(r"\{(\w+)\}", lambda match: texts[match[1]], _PROMPT)

    def finding(self, reply: str) -> Finding | None:
        """Return the text after the reply's last heading, or the whole reply if it has none; None if that is empty."""
        said = _THOUGHTS.sub("", reply)
        headings = list(_HEADINGS.finditer(said))
        if headings:
            said = said[headings[-1].end() :]
        text = clean(said).strip("*`\"' ").strip()
        if not text:
            return None
        if _NO.match(text):
            return Finding(NOTHING, helpful=False)
        return Finding(text, helpful=True)


def steps_so_far(
    text: str, hidden: Sequence[Sequence[int]], tag_format: TagFormat, budget: int, count: CountTokens
) -> str:
    """Return a numbered list of a text's first step, its last four, and those with a search or its results.

    Args:
        text: The text written by the model, and the blocks inserted.
        hidden: The spans `[start, end]` of the calls and of the blocks inserted after them.
        tag_format: The format of the calls and blocks.
        budget: Maximum number of tokens. Steps that do not fit are dropped from the second one on, then the first.
        count: Counts the tokens of a text.
    """
    steps = _steps(text, hidden)
    marks = (*tag_format.call, *tag_format.result)
    n = len(steps)
    kept = [i for i, s in enumerate(steps) if i == 0 or i >= n - _LAST or any(mark in s for mark in marks)]
    while len(kept) > 1 and count(_numbered(steps, kept)) > budget:
        del kept[1 if len(kept) > 2 else 0]
    return _last_words(_numbered(steps, kept), budget, count)


def _steps(text: str, hidden: Sequence[Sequence[int]]) -> list[str]:
    """Split the text into lines. An inserted block is one line; a call stays in the line that it was written in."""
    parts, since = [], 0
    for start, end in hidden:
        block = text[start:end]
        one = " ".join(block.split())
        parts += [text[since:start], f"\n{one}\n" if block[:1] == "\n" else one]
        since = end
    lines = "".join([*parts, text[since:]]).split("\n")
    return [" ".join(line.split()) for line in lines if line.strip()]


def _numbered(steps: Sequence[str], kept: Sequence[int]) -> str:
    """Return the steps to keep, with dots in place of skipped ones."""
    lines: list[str] = []
    before = -1
    for i in kept:
        if i != before + 1:
            lines.append("...")
        lines.append(f"{i + 1}. {steps[i]}")
        before = i
    return "\n".join(lines)


def _last_words(text: str, budget: int, count: CountTokens) -> str:
    """Return the text without as many of its first words as the budget requires."""
    if count(text) <= budget:
        return text
    words = text.split(" ")
    gone = bisect_left(range(len(words)), True, key=lambda i: count(" ".join(["...", *words[i:]])) <= budget)
    return " ".join(["...", *words[gone:]])
