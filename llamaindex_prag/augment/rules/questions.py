"""The questions that cost nothing: those that people would ask, as far as the rules find them, and one on every phrase.

    passage -> clause_questions, filled up with phrase_questions

Where the first find little (short passages, another language, tables), the second fill up. Knows no models.
"""

from __future__ import annotations

import re

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.augment.rules.clause_questions import clause_questions
from llamaindex_prag.augment.rules.phrases import phrase_questions
from rag_backbone.text.units import stop_words

_ENGLISH = 0.2  # of a text's words are function words, at least
_WORD = re.compile(r"\w+")


def rule_questions(text: str, n: int, *, title: str = "", seed: int = 0) -> list[QA]:
    """At most `n` questions about a passage, each with its answer.

    Args:
        text: The passage.
        n: How many; fewer if the passage is short.
        title: Its title, which questions name.
        seed: The same passage, title and seed always give the same questions.
    """
    asked = clause_questions(text, n, title=title, seed=seed) if is_english(text) else []
    return [*asked, *phrase_questions(text, n - len(asked), title=title, seed=seed)]


def is_english(text: str) -> bool:
    """Whether enough of a text's words are English function words."""
    words, listed = _WORD.findall(text.lower()), stop_words("en")
    return sum(word in listed for word in words) >= _ENGLISH * max(len(words), 1)
