"""Label the sentences of an answer as right or wrong, by looking up their facts in the supporting paragraphs.

The *facts* of a sentence are its names and numbers (including dates) that do not occur in the question. A sentence is
wrong if the supporting paragraphs lack one of its facts; right if they contain all of them and the text before lacks
one, or if the sentence states the answer; otherwise it says nothing new. A sentence with the answer phrase is right if
its answer is right (F1 of at least one half).

The labels rest on words only: a right name in a wrong role passes, and facts in lower case are not noticed. How often
they are wrong has to be checked by reading sentences; the pages that use these labels report it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from benchmarks.datasets import Paragraph, Question
from langgraph_dynrag.short_answer import short_answer
from rag_backbone.metrics import contains, f1
from rag_backbone.text.units import Span, not_a_stop_word, words

Label = Literal["right", "wrong", "nothing new"]
_RIGHT_FROM = 0.5


@dataclass(frozen=True, slots=True)
class Labelled:
    """The label of a sentence, with its facts."""

    label: Label
    facts: tuple[Span, ...] = ()
    """Character spans of the facts."""
    unsupported: tuple[Span, ...] = ()
    """Facts that no supporting paragraph contains; for a wrong short answer, its words."""


def judge(sentence: str, before: str, question: Question, phrase: str) -> Labelled:
    """Judge a sentence of an answer.

    Args:
        sentence: The whole sentence.
        before: The answer up to the sentence.
        question: The question, with its paragraphs and answers.
        phrase: The phrase that introduces the short answer.
    """
    if phrase.lower() in sentence.lower():
        start = sentence.lower().find(phrase.lower()) + len(phrase)
        answer = short_answer(sentence, phrase)
        said = tuple(s for s in words(sentence) if s.start >= start)
        if f1(answer, question.answers) >= _RIGHT_FROM:
            return Labelled("right", said)
        return Labelled("wrong", said, said)
    asked, told = vocabulary(question.text), vocabulary(before)
    facts = tuple(s for s in names_and_numbers(sentence) if _key(sentence[s.start : s.end]) not in asked)
    unsaid = [a for a in question.answers if not contains(f"{question.text} {before}", [a])]
    if contains(sentence, unsaid):
        return Labelled("right", facts)
    supported = vocabulary(" ".join(_whole(p) for p in question.paragraphs if p.supporting))
    unsupported = tuple(s for s in facts if _key(sentence[s.start : s.end]) not in supported)
    if unsupported:
        return Labelled("wrong", facts, unsupported)
    new = any(_key(sentence[s.start : s.end]) not in told for s in facts)
    return Labelled("right" if new else "nothing new", facts)


def told_by(sentence: str, labelled: Labelled, question: Question) -> Paragraph | None:
    """Return the supporting paragraph that a right sentence repeats.

    It contains all facts of the sentence; of several such paragraphs, it shares the most names with the sentence.
    """
    facts = {_key(sentence[s.start : s.end]) for s in labelled.facts}
    names = {_key(sentence[s.start : s.end]) for s in names_and_numbers(sentence)}
    best: tuple[int, Paragraph] | None = None
    for paragraph in question.paragraphs:
        found = vocabulary(_whole(paragraph))
        if paragraph.supporting and facts and facts <= found:
            shared = len(names & found)
            if best is None or shared > best[0]:
                best = shared, paragraph
    return None if best is None else best[1]


def names_and_numbers(sentence: str) -> list[Span]:
    """Return words with a digit or an initial capital, except stop words."""
    spans = words(sentence)
    content = not_a_stop_word()([sentence[s.start : s.end] for s in spans])
    return [
        s
        for s, carries in zip(spans, content, strict=True)
        if carries and (sentence[s.start].isupper() or any(c.isdigit() for c in sentence[s.start : s.end]))
    ]


def vocabulary(text: str) -> frozenset[str]:
    """Return the words of a text in the form in which they are compared, with the parts of hyphenated words."""
    found = [text[s.start : s.end] for s in words(text)]
    return frozenset(_key(part) for word in found for part in _with_parts(word))


def _with_parts(word: str) -> Iterable[str]:
    yield word
    if "-" in word:
        yield from word.split("-")


def _key(word: str) -> str:
    key = word.casefold().replace("\u2019", "'").removesuffix("'s")
    return "".join(c for c in key if c.isalnum())


def _whole(paragraph: Paragraph) -> str:
    return f"{paragraph.title}. {paragraph.text}"
