"""Detecting facts of the prompt's worked examples in an answer: weak models repeat what their prompt shows.

A fact is a name or a number, recognised by a capital letter within a sentence, a digit, or a script without capitals.
Facts that also occur in the question or in a retrieved passage are not leaks. Pure; knows no models or graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from langgraph_dynrag.prompts import Exemplar
from rag_backbone.text.units import WordFilter, not_a_stop_word, sentences, words

_VERDICTS = frozenset({"yes", "no", "true", "false"})


def exemplar_facts(
    answer: str,
    short_answer: str,
    exemplars: Sequence[Exemplar],
    known: Iterable[str],
    carries_content: WordFilter | None = None,
) -> list[str]:
    """Return the parts of an answer that come from a worked example, those of the short answer first.

    In the short answer, a single name or number is enough. The rest of the answer needs two, in words that follow each
    other in an example as well, since single words match by chance.

    Args:
        answer: The whole answer.
        short_answer: The text after the answer phrase; the answer itself if there is no phrase.
        exemplars: The prompt's examples.
        known: The other texts given to the model: the question and the passages.
        carries_content: Filters out function words, which are not facts; default: an English stop-word list.
    """
    if not exemplars:
        return []
    shown = [text for exemplar in exemplars for text in (exemplar.question, exemplar.answer)]
    given = {word.casefold() for text in known for word in _words(text)}
    names = sorted({name for text in shown for name in _names(text)})
    content = (carries_content or not_a_stop_word())(names)
    facts = {name.casefold() for name, keep in zip(names, content, strict=True) if keep} - given - _VERDICTS
    pairs = {(a.casefold(), b.casefold()) for text in shown for a, b in pairwise(_words(text))}
    found = _runs(short_answer, facts, pairs, least=1)
    found += [run for run in _runs(answer, facts, pairs, least=2) if not any(run in one for one in found)]
    return list(dict.fromkeys(found))


def _runs(text: str, facts: set[str], pairs: set[tuple[str, str]], *, least: int) -> list[str]:
    """Return word runs that also occur in an example, cut to the first and last of their `least` or more facts."""
    spans = words(text)
    folded = [text[s.start : s.end].casefold() for s in spans]
    found, start = [], 0
    for i in range(len(spans)):
        if i + 1 < len(spans) and (folded[i], folded[i + 1]) in pairs:
            continue
        at = [n for n in range(start, i + 1) if folded[n] in facts]
        if len(at) >= least:
            found.append(text[spans[at[0]].start : spans[at[-1]].end])
        start = i + 1
    return found


def _names(text: str) -> list[str]:
    found = []
    for sentence in sentences(text):
        for i, word in enumerate(_words(text[sentence.start : sentence.end])):
            capital = word[0] != word[0].lower()
            uncased = word.lower() == word.upper() and len(word) > 1
            if uncased or any(c.isdigit() for c in word) or (capital and i > 0):
                found.append(word)
    return found


def _words(text: str) -> list[str]:
    return [text[s.start : s.end] for s in words(text)]
