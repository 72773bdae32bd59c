"""Prompts for augmenting a passage with a language model: question styles and the rewrite.

Each style has its own prompt, because the number and variety of questions determine how well an adapter answers. The
passage comes first in every prompt, so that an engine with a prefix cache prefills it once for all of them. Questions
are requested as two labelled lines rather than as JSON: small models break JSON, and a truncated reply loses only its
last question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag_backbone.errors import ConfigurationError

PROMPTS_VERSION = 1
"""Part of every cache key. Increment it with every change to the texts below."""


@dataclass(frozen=True, slots=True)
class Style:
    """A kind of question and its prompt."""

    share: int
    """Share of all questions, relative to the other styles."""
    instruction: str
    openings: tuple[str, ...] = ()
    """First words of the first question; each attempt uses the next ones. None if replies are not prefilled."""


STYLES: dict[str, Style] = {
    "facts": Style(
        3, "Ask for one fact each: a name, a number, a material, a reason, a purpose.", ("What", "Which", "How")
    ),
    "who_when_where": Style(
        3,
        'Begin the questions with "Who", "When", "In which year", "Where" or "How many".',
        ("When", "Who", "Where", "How many"),
    ),
    "paraphrase": Style(
        2,
        "Ask in other words than those of the passage: use synonyms and another order of the sentence.",
        ("What", "Which", "How"),
    ),
    "reverse": Style(
        2,
        "Describe a person, place or thing by what is said of it, and ask for its name, so that the name is the answer "
        "and does not occur in the question.",
        ("Which", "Who", "What is the name of"),
    ),
    "yes_no": Style(
        1,
        "Ask questions that are answered by yes or by no; about half of them must have the answer no.",
        ("Is", "Did", "Was"),
    ),
}

ENDPOINT_STYLES: dict[str, Style] = {
    "search": Style(
        1,
        "Ask as people type into a search box: in three to eight words, without politeness, each with a single answer. "
        "Copy each answer from the passage.",
    ),
    "implication": Style(
        1,
        "Ask for what follows from the passage but is not stated in any one sentence of it: each question needs one "
        "step of reasoning, such as to connect two facts, to compare them, or to draw a conclusion. Give each answer "
        'in words of the passage; at most one answer is "yes" or "no".',
    ),
    "reverse": Style(1, STYLES["reverse"].instruction),
}
"""The styles of `EndpointAugmenter`. Implications are what SEAL trains on (Zweiger et al. 2025, arXiv 2506.10943);
reversed questions are a remedy for facts that are learnt in one direction only."""


def question_prompt(style: str, count: int, title: str, text: str) -> str:
    """Return the prompt that asks for `count` questions of one style."""
    instruction = (STYLES | ENDPOINT_STYLES)[style].instruction
    # No example: small models copy it instead of following it.
    return (
        f"{_passage(title, text)}\n\n"
        f"Write {count} different questions that can be answered from the passage above, with their answers. "
        f"{instruction} Each question must be clear to somebody who has not seen the passage: write the "
        'full name of what it is about instead of "he", "she" or "it", and do not mention the passage. Each answer has '
        'at most eight words.\n\nWrite each question on a line that begins with "Q:" and its answer on the next line, '
        'which begins with "A:".'
    )


def question_begin(style: str, attempt: int) -> str:
    """Return the beginning of a reply, for models whose reply can be prefilled."""
    openings = STYLES[style].openings
    return f"Q: {openings[attempt % len(openings)]}"


def passage_rewrite_prompt(title: str, text: str) -> str:
    """Return the prompt that asks for a rewrite of the passage."""
    return (
        f"{_passage(title, text)}\n\n"
        "Write the passage above once more in other words: change the wording and the order within the sentences, and "
        "keep every fact. Copy all names, technical terms, numbers and dates exactly. Add nothing, leave nothing out, "
        "and reply with the new text only."
    )


def shares(questions: int, styles: Sequence[str], known: Mapping[str, Style] = STYLES) -> dict[str, int]:
    """Return the number of questions per style, `questions` in total. Styles with no questions are left out.

    Raises:
        ConfigurationError: If a style is unknown or named twice, or no style is named.
    """
    if unknown := [s for s in styles if s not in known]:
        raise ConfigurationError(f"there is no question style {unknown[0]!r}; known: {', '.join(known)}")
    if not styles or len(set(styles)) < len(styles):
        raise ConfigurationError(f"styles are {tuple(styles)}; name at least one, and each one once")
    total = sum(known[s].share for s in styles)
    exact = {s: questions * known[s].share / total for s in styles}
    given = {s: int(value) for s, value in exact.items()}
    # The largest remainders get the rest; ties go to the style named first.
    for s in sorted(styles, key=lambda s: given[s] - exact[s])[: questions - sum(given.values())]:
        given[s] += 1
    return {s: n for s, n in given.items() if n}


def _passage(title: str, text: str) -> str:
    return f"Title: {title.strip()}\nPassage: {text.strip()}" if title.strip() else f"Passage: {text.strip()}"
