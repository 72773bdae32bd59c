"""Label the sentences of an answer as right or wrong, by looking up their facts in supporting texts.

The *facts* of a sentence are its names and numbers (including dates) that do not occur in the question. A sentence is
wrong if the supporting texts lack one of its facts; right if they contain all of them and the text before lacks one, or
if the sentence states the answer; otherwise it says nothing new. A sentence with the answer phrase is right if its
answer is right (F1 of at least one half).

The labels rest on words only: a right name in a wrong role passes, and facts in lower case are not noticed. How often
they are wrong has to be checked by reading sentences; the pages that use these labels report it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from langgraph_dynrag.short_answer import short_answer
from rag_backbone.metrics import contains, f1
from rag_backbone.text.names import names_and_numbers, vocabulary, word_key
from rag_backbone.text.units import Span, words

Label = Literal["right", "wrong", "nothing new"]
_RIGHT_FROM = 0.5


@dataclass(frozen=True, slots=True)
class Labelled:
    """The label of a sentence, with its facts."""

    label: Label
    facts: tuple[Span, ...] = ()
    """Character spans of the facts."""
    unsupported: tuple[Span, ...] = ()
    """Facts that no supporting text contains; for a wrong short answer, its words."""


def judge_sentence(
    sentence: str,
    before: str,
    question: str,
    *,
    answers: Sequence[str],
    supporting: Sequence[str],
    phrase: str | None,
) -> Labelled:
    """Judge a sentence of an answer.

    Args:
        sentence: The whole sentence.
        before: The answer up to the sentence.
        question: The question.
        answers: The correct answer and its aliases.
        supporting: Texts that state what the answer needs, each with its title.
        phrase: The phrase that introduces the short answer, if any.
    """
    if phrase is not None and phrase.lower() in sentence.lower():
        start = sentence.lower().find(phrase.lower()) + len(phrase)
        answer = short_answer(sentence, phrase)
        said = tuple(s for s in words(sentence) if s.start >= start)
        if f1(answer, answers) >= _RIGHT_FROM:
            return Labelled("right", said)
        return Labelled("wrong", said, said)
    asked, told = vocabulary(question), vocabulary(before)
    facts = tuple(s for s in names_and_numbers(sentence) if word_key(sentence[s.start : s.end]) not in asked)
    unsaid = [a for a in answers if not contains(f"{question} {before}", [a])]
    if contains(sentence, unsaid):
        return Labelled("right", facts)
    supported = vocabulary(" ".join(supporting))
    unsupported = tuple(s for s in facts if word_key(sentence[s.start : s.end]) not in supported)
    if unsupported:
        return Labelled("wrong", facts, unsupported)
    new = any(word_key(sentence[s.start : s.end]) not in told for s in facts)
    return Labelled("right" if new else "nothing new", facts)
