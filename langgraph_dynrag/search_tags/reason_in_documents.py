"""What a search found, condensed by the model before it is inserted: Search-o1's Reason-in-Documents.

Li et al. 2025, section 3.4 and appendix A.1. A second call of the model is shown the reasoning so far, the query and
the documents found, goes through them, and states what of them helps; that alone is inserted where the model goes on.
Here are the setting, the prompt and how its reply is read; pure functions, which know nothing of models or states. The
words are our own.

Of the reasoning it is shown the first step, the last four, and those with a search or its results. A step is a line;
what was inserted after a search is one. As published, except for two things: a reply without the heading that was asked
for is taken whole (the code takes it for nothing found), because small models leave it out; and the calls and results
of a search count as steps that belong to it, whatever lines they have.
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
# The beginning of the thoughts may stand in the model's prompt, and the end may never have come.
_THOUGHTS = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL | re.IGNORECASE)
# All of a reply: what says more than that may be a fact.
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
    """What a reply says of the documents."""

    text: str
    """One line."""
    helpful: bool


@dataclass(frozen=True, slots=True)
class ReasonInDocuments:
    """Has the model extract from the documents found what helps, and inserts that in their place.

    For formats of searches that the model writes (`WrittenTag`). The documents that it is shown are bounded by
    `context_tokens`, as they would be where they are inserted themselves. They are, if the call fails or says nothing.

    Args:
        tokens: Of the reply at most, going through the documents included.
        steps_tokens: Of the steps so far at most.

    Raises:
        ConfigurationError: If a number is less than 16.
    """

    tokens: Annotated[int, Bounds(least=16)] = 512
    steps_tokens: Annotated[int, Bounds(least=16)] = 1024

    def __post_init__(self) -> None:
        check_fields(self)

    def check_with(self, settings: Method) -> None:
        """Refuse methods where nothing is inserted that could be condensed."""
        if not settings.exchange.within_text:
            raise ConfigurationError(
                f"digest condenses what is inserted after a search that the model writes, and {settings.trigger} "
                "inserts nothing. Use trigger=WrittenTag(...), as preset='search_o1' does, or digest=None."
            )

    def prompt(self, steps: str, query: str, documents: str) -> str:
        """What the model is asked."""
        # What is put in is not looked at again, whatever it contains.
        texts = {
            "steps": steps,
            "query": query,
            "documents": documents,
            "heading": _HEADING,
            "nothing": NOTHING,
        }
        return re.sub(r"\{(\w+)\}", lambda match: texts[match[1]], _PROMPT)

    def finding(self, reply: str) -> Finding | None:
        """What a reply says behind its last heading, or as a whole if it has none; None if that is nothing."""
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
    """The first step of a text, its last four, and those with a search or its results, numbered.

    Args:
        text: What was written and inserted.
        hidden: The spans `[start, end]` of the calls and of what was inserted after them.
        tag_format: How those look.
        budget: Tokens at most; what does not fit is left out from the second step on, then from the beginning.
        count: Counts them.
    """
    steps = _steps(text, hidden)
    marks = (*tag_format.call, *tag_format.result)
    n = len(steps)
    kept = [i for i, s in enumerate(steps) if i == 0 or i >= n - _LAST or any(mark in s for mark in marks)]
    while len(kept) > 1 and count(_numbered(steps, kept)) > budget:
        del kept[1 if len(kept) > 2 else 0]
    return _last_words(_numbered(steps, kept), budget, count)


def _steps(text: str, hidden: Sequence[Sequence[int]]) -> list[str]:
    """Lines, of which an insertion is one; a call stays in the line that it was written in."""
    parts, since = [], 0
    for start, end in hidden:
        block = text[start:end]
        one = " ".join(block.split())
        parts += [text[since:start], f"\n{one}\n" if block[:1] == "\n" else one]
        since = end
    lines = "".join([*parts, text[since:]]).split("\n")
    return [" ".join(line.split()) for line in lines if line.strip()]


def _numbered(steps: Sequence[str], kept: Sequence[int]) -> str:
    """The steps that are kept, with dots for what is left out between them."""
    lines: list[str] = []
    before = -1
    for i in kept:
        if i != before + 1:
            lines.append("...")
        lines.append(f"{i + 1}. {steps[i]}")
        before = i
    return "\n".join(lines)


def _last_words(text: str, budget: int, count: CountTokens) -> str:
    """The text without as many of its first words as have to go."""
    if count(text) <= budget:
        return text
    words = text.split(" ")
    gone = bisect_left(range(len(words)), True, key=lambda i: count(" ".join(["...", *words[i:]])) <= budget)
    return " ".join(["...", *words[gone:]])
