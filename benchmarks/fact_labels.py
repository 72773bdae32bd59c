"""Label the sentences of an answer by the supporting paragraphs of its question.

`langgraph_dynrag.calibration.labels` defines the labels, and says how reliable they are.
"""

from __future__ import annotations

from benchmarks.datasets import Paragraph, Question
from langgraph_dynrag.calibration.labels import Labelled, judge_sentence
from rag_backbone.text.names import names_and_numbers, vocabulary, word_key

__all__ = ["Labelled", "judge", "names_and_numbers", "told_by", "vocabulary"]


def judge(sentence: str, before: str, question: Question, phrase: str) -> Labelled:
    """Judge a sentence of an answer.

    Args:
        sentence: The whole sentence.
        before: The answer up to the sentence.
        question: The question, with its paragraphs and answers.
        phrase: The phrase that introduces the short answer; with an empty one, every sentence is one.
    """
    supporting = [_whole(p) for p in question.paragraphs if p.supporting]
    return judge_sentence(
        sentence, before, question.text, answers=question.answers, supporting=supporting, phrase=phrase
    )


def told_by(sentence: str, labelled: Labelled, question: Question) -> Paragraph | None:
    """Return the supporting paragraph that a right sentence repeats.

    It contains all facts of the sentence; of several such paragraphs, it shares the most names with the sentence.
    """
    facts = {word_key(sentence[s.start : s.end]) for s in labelled.facts}
    names = {word_key(sentence[s.start : s.end]) for s in names_and_numbers(sentence)}
    best: tuple[int, Paragraph] | None = None
    for paragraph in question.paragraphs:
        found = vocabulary(_whole(paragraph))
        if paragraph.supporting and facts and facts <= found:
            shared = len(names & found)
            if best is None or shared > best[0]:
                best = shared, paragraph
    return None if best is None else best[1]


def _whole(paragraph: Paragraph) -> str:
    return f"{paragraph.title}. {paragraph.text}"
