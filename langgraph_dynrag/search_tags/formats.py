"""Formats in which a model writes its own searches and receives their results within its answer.

A *call* is a query between two marks (`<search>query</search>`). The graph writes the results after it, between two
other marks, and the model continues from there. This module defines the formats and finds their marks in a text; it
consists of pure functions and knows no states or models. The caller decides which text may contain calls: only what
the model wrote itself, never the prompt, the question or a document.

| format | source | call | results |
| --- | --- | --- | --- |
| `SEARCH` | ours, for instruct models | `<search>` | `<result>` |
| `SEARCH_O1` | Search-o1 (Li et al. 2025) | `<|begin_search_query|>` | `<|begin_search_result|>` |
| `SEARCH_R1` | Search-R1 (Jin et al. 2025) | `<search>` | `<information>` |
| `R1_SEARCHER` | R1-Searcher (Song et al. 2025) | `<|begin_of_query|>` | `<|begin_of_documents|>` |

The wording of the notices is our own. Documents are inserted as they are, within the token budget. Search-o1 inserts
what a second model call extracts from them instead (`langgraph_dynrag.search_tags.reason_in_documents`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, NamedTuple

from langgraph_dynrag.evidence import Passage
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.units import Span
from rag_backbone.typed_fields import check_fields

Problem = Literal["empty", "unclosed", "repeated", "limit", "nothing found", "no room"]
"""Why a call gets a notice instead of results."""

_NOTICES: dict[Problem, str] = {
    "empty": "The search was empty. Write what to look for between the search marks, or answer.",
    "unclosed": "The search was not closed, so nothing was looked up. Search again, or answer.",
    "repeated": "This was searched for before. Use the results above, search for something else, or answer.",
    "limit": "No further search is possible. Answer with what is known now.",
    "nothing found": "Nothing was found.",
    "no room": "The results do not fit any more. Answer with what is known now.",
}


class Call(NamedTuple):
    """One search that the model wrote."""

    query: str
    """Stripped; may be empty."""
    span: Span
    """Its characters, marks included, starting at the outermost opening mark that the closing mark ends."""
    nested: bool
    """Whether another call was opened inside; the query is that of the innermost one."""


@dataclass(frozen=True, slots=True)
class TagFormat:
    """A format of calls and results.

    The marks must be ordinary text to the model's tokenizer, because its control tokens never appear in a text.

    Raises:
        ConfigurationError: If a mark is blank, or contains another mark, so that they could not be told apart.
    """

    name: str
    call: tuple[str, str]
    """The marks before and after a query."""
    result: tuple[str, str]
    """The marks before and after the results."""
    numbering: str = "[{}] "
    """Prefix of a passage, with its number."""
    titled: str = "{}: "
    """Prefix of a passage's text, with its title if it has one."""
    turns: int = 10
    """Maximum number of searches and notices together; then the short answer is asked for explicitly."""
    bare_notices: bool = False
    """Whether notices are written without the marks of results."""

    def __post_init__(self) -> None:
        check_fields(self)
        marks = (*self.call, *self.result)
        if any(not mark.strip() for mark in marks):
            raise ConfigurationError(f"tag format {self.name!r} has a blank mark among {marks}")
        for a, b in permutations(marks, 2):
            if a in b:
                raise ConfigurationError(f"tag format {self.name!r}: mark {a!r} is part of, or the same as, {b!r}")
        if self.turns < 1:
            raise ConfigurationError(f"tag format {self.name!r}: turns is {self.turns}; at least 1 is needed")

    def calls(self, text: str, since: int = 0) -> list[Call]:
        """Return all closed calls after a character, in order. A stray closing mark is not a call."""
        return [call for call in self._closed(text, since) if isinstance(call, Call)]

    def new_calls(self, accepted: str, fresh: str) -> list[Call]:
        """Return the calls closed in `fresh`, which follows `accepted`; a call may have been opened before `fresh`."""
        return [call for call in self.calls(accepted + fresh) if call.span.end > len(accepted)]

    def open_call(self, text: str, since: int = 0) -> int | None:
        """Return where an unclosed call begins; None if there is none."""
        done = self._closed(text, since)
        at = text.find(self.call[0], _span(done[-1]).end if done else since)
        return None if at < 0 else at

    def marked(self, text: str, since: int = 0) -> list[Span]:
        """Return the spans of all closed calls and stray closing marks after a character, which no answer shows."""
        return [_span(found) for found in self._closed(text, since)]

    def results(self, passages: Sequence[Passage]) -> str:
        """Return the block to insert for the passages found."""
        lines = []
        for number, p in enumerate(passages, 1):
            title = self.titled.format(p["title"]) if p["title"] and not p["text"].startswith(p["title"]) else ""
            lines.append(f"{self.numbering.format(number)}{title}{p['text']}")
        return self.block("\n".join(lines))

    def notice(self, problem: Problem) -> str:
        """Return the block to insert if there are no results."""
        return f"\n\n{_NOTICES[problem]}\n\n" if self.bare_notices else self.block(_NOTICES[problem])

    def disarmed(self, passage: Passage) -> Passage:
        """Return the passage with a space inside every mark that it contains, so that it cannot end its own block."""
        text, title = passage["text"], passage["title"]
        for mark in (*self.call, *self.result):
            pattern = re.compile(re.escape(mark), re.IGNORECASE)
            text, title = (pattern.sub(lambda m: f"{m[0][0]} {m[0][1:]}", s) for s in (text, title))
        return Passage(**{**passage, "text": text, "title": title})

    def block(self, content: str) -> str:
        """Return the content between the marks of results, as it is inserted."""
        return f"\n\n{self.result[0]}\n{content}\n{self.result[1]}\n\n"

    def _closed(self, text: str, since: int) -> list[Call | Span]:
        """Return closed calls, and the spans of closing marks without an opening one, in order."""
        opening, closing = self.call
        found: list[Call | Span] = []
        while (at := text.find(closing, since)) >= 0:
            end = at + len(closing)
            outer = text.find(opening, since, at)
            if outer < 0:
                found.append(Span(at, end))
            else:
                inner = text.rfind(opening, since, at)
                query = text[inner + len(opening) : at].strip()
                found.append(Call(query, Span(outer, end), inner != outer))
            since = end
        return found


def shown(text: str, hidden: Sequence[Sequence[int]]) -> str:
    """Return the text without its hidden spans (`[start, end]`, in order)."""
    kept, since = [], 0
    for start, end in hidden:
        kept.append(text[since:start])
        since = end
    return "".join([*kept, text[since:]])


def _span(found: Call | Span) -> Span:
    return found.span if isinstance(found, Call) else found


SEARCH = TagFormat("search_tag", ("<search>", "</search>"), ("<result>", "</result>"), turns=8)
SEARCH_O1 = TagFormat(
    "search_o1",
    ("<|begin_search_query|>", "<|end_search_query|>"),
    ("<|begin_search_result|>", "<|end_search_result|>"),
    turns=15,
)
SEARCH_R1 = TagFormat(
    "search_r1",
    ("<search>", "</search>"),
    ("<information>", "</information>"),
    numbering="Doc {} ",
    titled="(Title: {}) ",
    turns=5,
    bare_notices=True,
)
R1_SEARCHER = TagFormat(
    "r1_searcher",
    ("<|begin_of_query|>", "<|end_of_query|>"),
    ("<|begin_of_documents|>", "<|end_of_documents|>"),
    numbering="({}) ",
    turns=10,
)
FLARE_INSTRUCT = TagFormat("flare_instruct", ("[Search(", ")]"), ("[Results]", "[End of results]"))
