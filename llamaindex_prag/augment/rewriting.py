"""Extract a rewritten passage from a model's reply, and reject replies that are not faithful.

A rewrite is trained on like the document itself, so one that loses the document's names and numbers, repeats the
document, or talks about the task does harm. Knows no models.
"""

from __future__ import annotations

import re

from llamaindex_prag.augment.grounding import folded
from llamaindex_prag.augment.qa_parsing import THOUGHT

REWRITE = "rewrite"
"""Name of this kind of reply."""

_PREAMBLE = re.compile(
    r"(?i)^(?:sure|certainly|of course|here(?:'s| is| are)|okay|the (?:new|rewritten)|rewritten|passage|rewrite)"
    r"[^\n:]{0,80}:\s*"
)
_TITLE_LINE = re.compile(r"(?i)^title\s*:[^\n]*\n+(?:passage\s*:\s*)?")
_ENDS = re.compile(r"[.!?\u3002]['\"\u201d)]?$")
_WHOLE = re.compile(r"(?s).*[.!?\u3002]['\"\u201d)]?(?=\s|$)")
_FACTS = re.compile(r"\b\d[\d.,]*\d\b|\b\d\b|(?<=[a-z,;] )[^\W\d_a-z]\w+")


def faithful_rewrite(reply: str, text: str) -> str | None:
    """Return the rewrite of a document in a model's reply, or None if the reply contains no faithful one.

    A rewrite must have 0.4 to 2.5 times the document's length, and contain at least 3/4 of its numbers and names. At
    most 1/10 of the rewrite's numbers and names may not be in the document.
    """
    found = THOUGHT.sub("", reply[: 4 * len(text) + 10_000], count=1).strip()
    for opening in (_PREAMBLE, _TITLE_LINE, _PREAMBLE):
        found = opening.sub("", found, count=1).strip()
    if len(found) > 1 and found[0] + found[-1] in ('""', "“”", "''"):
        found = found[1:-1].strip()
    if "\n\n" not in text.strip():  # text after a single paragraph is a comment on it
        found = found.split("\n\n", 1)[0]
    if _ENDS.search(text.strip()) and (whole := _WHOLE.match(found)) is not None:
        found = whole[0]  # drop the unfinished sentence of a truncated reply
    same = folded(" ".join(found.split())) == folded(" ".join(text.split()))
    if same or not 0.4 * len(text.strip()) <= len(found) <= 2.5 * len(text.strip()):
        return None
    facts, new = _facts(text), _facts(found)
    lost = sum(fact not in folded(found) for fact in facts)
    made_up = sum(fact not in folded(text) for fact in new)
    return found if lost <= 0.25 * len(facts) and made_up <= 0.1 * len(new) else None


def _facts(text: str) -> set[str]:
    return {folded(fact) for fact in _FACTS.findall(text)}
