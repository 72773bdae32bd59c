"""How much retrieval a question needs: Adaptive-RAG's three classes, and a stand-in for its trained classifier.

Jeong et al. 2024, section 3.2, train a T5-large on silver labels:

| label | class | questions that get it |
| --- | --- | --- |
| A | `none` | the model answers correctly without retrieval |
| B | `single` | not A, and one retrieval is enough |
| C | `multi` | neither, and multi-step retrieval answers correctly |

The simplest class that answers correctly wins. Questions that no strategy answers are labelled by their data set: B for
single-hop ones, C for multi-hop ones. No weights were published with the paper that could be shipped here, and the
labels depend on the answering model, so any function may classify instead: `classifier=function`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeAlias

from langgraph_dynrag.events.parts import Complexity
from rag_backbone.checks import known_arguments
from rag_backbone.typed_fields import Bounds, check_fields

Classifier: TypeAlias = Callable[[str], Complexity | Awaitable[Complexity]]
"""A function from a question to its class, synchronous or not. A synchronous one is called in a thread by `ainvoke`; an
asynchronous one only works there."""

FALLBACK: Complexity = "single"
"""The class of a question that could not be classified."""
_LABELS: dict[str, Complexity] = {"A": "none", "B": "single", "C": "multi"}
# A capital letter that a lower-case word follows is the article: "A passage is needed."
_REPLY = re.compile(
    r"[\W_]*(?i:(?:the\s+)?(?:answer|label|letter|option)\b(?:\s+is)?[\W_]*)?([ABC])(?![\w'])(?!\s+[a-z])"
)
_ECHO = re.compile(r"\bA, B,? (?:or|and) C\b")
_PROMPT = """\
How much has to be looked up in a collection of documents before this question can be answered?

A: nothing, because it is common knowledge.
B: one fact, which a single passage states.
C: several facts from different passages, one of which often shows what to look up next.

Question: {question}

Reply with one letter: A, B or C.\
"""


class Classified(NamedTuple):
    """The class that a reply states, or the reason why there is none."""

    route: Complexity | None
    problem: str | None = None


@known_arguments
@dataclass(frozen=True, slots=True)
class AskComplexity:
    """Asks the answering model itself how much retrieval a question needs.

    Our stand-in for Adaptive-RAG's trained classifier, with a prompt of our own: small models hardly tell the classes
    apart, and nothing is known of how it compares to the trained one. A reply that names no class, as when reasoning
    takes up all `tokens`, counts as `single`, with a warning.

    Raises:
        ConfigurationError: If `tokens` is less than 1.
    """

    tokens: Annotated[int, Bounds(least=1)] = 16
    """Maximum length of the reply. A model that reasons first needs more, such as 2048."""

    def __post_init__(self) -> None:
        check_fields(self)

    def prompt(self, question: str) -> str:
        """Return the instruction for the model."""
        return _PROMPT.replace("{question}", question)

    def read(self, reply: str) -> Classified:
        """Return the class that a reply begins with, as a letter or as the name of the class."""
        said = reply.strip()
        if _ECHO.search(said):  # small models repeat the instruction
            return Classified(None, "the reply repeats the choices")
        if found := _REPLY.match(said):
            return Classified(_LABELS[found[1]])
        word = said.strip("\"'`*. ").lower()
        named = next((name for name in _LABELS.values() if name == word), None)
        return Classified(named, None if named else "the reply is empty" if not said else "the reply names no class")
