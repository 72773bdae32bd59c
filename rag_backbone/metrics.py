"""Answer metrics: exact match and F1 as in SQuAD (Rajpurkar et al. 2016, section 6.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised_answer(text: str) -> str:
    """Return the text in lower case, without punctuation and articles, and with white space collapsed."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if the normalised prediction equals one of the answers, otherwise 0.

    Normalising removes case, punctuation, articles and repeated spaces, as in SQuAD's script.
    """
    return float(any(normalised_answer(prediction) == normalised_answer(a) for a in answers))


def contains(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if one of the normalised answers occurs in the prediction as whole words, otherwise 0."""
    padded = f" {normalised_answer(prediction)} "
    return float(any(f" {normalised_answer(a)} " in padded for a in answers if normalised_answer(a)))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the best word-level F1 over the answers.

    "yes", "no" and "noanswer" only count if the whole answer matches, as in the scripts of HotpotQA and
    2WikiMultihopQA.
    """
    return max((_f1(normalised_answer(prediction), normalised_answer(a)) for a in answers), default=0.0)


def _f1(prediction: str, answer: str) -> float:
    special = {"yes", "no", "noanswer"}
    if prediction != answer and (prediction in special or answer in special):
        return 0.0
    p, a = prediction.split(), answer.split()
    common = sum((Counter(p) & Counter(a)).values())
    if not common:
        return float(p == a)
    return 2 * common / (len(p) + len(a))
