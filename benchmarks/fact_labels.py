"""Is a sentence of an answer right? Its new names, numbers and dates are looked up in the supporting paragraphs.

The *facts* of a sentence are its names and numbers that the question does not have. It is wrong if the supporting
paragraphs lack one of them; right if they hold all of them and the text before lacks one, or if it says the answer; and
it says nothing new otherwise. A sentence with the answer phrase is right if its answer is (F1 of at least one half).
This is a judgement by words: a right name in a wrong role passes, and a lower-case fact is not seen. How often it errs
is for a reader of the sentences to say; the pages that use it do.
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
    """The judgement on a sentence."""

    label: Label
    facts: tuple[Span, ...] = ()
    """Their characters."""
    unsupported: tuple[Span, ...] = ()
    """Those that no supporting paragraph has; of a wrong short answer, its words."""


def judge(sentence: str, before: str, question: Question, phrase: str) -> Labelled:
    """Judge a sentence that follows a text.

    Args:
        sentence: Whole.
        before: The answer up to it.
        question: With its paragraphs and answers.
        phrase: What announces the short answer.
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
    """The supporting paragraph that a right sentence repeats: it has all its facts, and most of its other names."""
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
    """Words with a digit or a capital; a capitalised first word counts if it is no stop word."""
    spans = words(sentence)
    content = not_a_stop_word()([sentence[s.start : s.end] for s in spans])
    return [
        s
        for s, carries in zip(spans, content, strict=True)
        if carries and (sentence[s.start].isupper() or any(c.isdigit() for c in sentence[s.start : s.end]))
    ]


def vocabulary(text: str) -> frozenset[str]:
    """A text's words as they are compared; parts of hyphenated ones as well."""
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
