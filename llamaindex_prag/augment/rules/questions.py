"""Questions by rule: natural ones as far as the rules find them, then one about every phrase.

    passage -> clause_questions, filled up with phrase_questions

The second kind fills up where the first finds little: short passages, other languages, tables. Knows no models.
"""

from __future__ import annotations

import re

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.augment.rules.clause_questions import clause_questions
from llamaindex_prag.augment.rules.phrases import phrase_questions
from rag_backbone.text.units import stop_words

_ENGLISH = 0.2  # minimum share of function words among a text's words
_WORD = re.compile(r"\w+")


def rule_questions(text: str, n: int, *, title: str = "", seed: int = 0) -> list[QA]:
    """Return at most `n` questions about a passage, each with its answer.

    Args:
        text: The passage.
        n: Number of questions; fewer if the passage is short.
        title: The passage's title, which questions name.
        seed: The same passage, title and seed always give the same questions.
    """
    asked = clause_questions(text, n, title=title, seed=seed) if is_english(text) else []
    return [*asked, *phrase_questions(text, n - len(asked), title=title, seed=seed)]


def is_english(text: str) -> bool:
    """Return whether enough of a text's words are English function words."""
    words, listed = _WORD.findall(text.lower()), stop_words("en")
    return sum(word in listed for word in words) >= _ENGLISH * max(len(words), 1)
