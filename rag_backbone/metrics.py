"""How an answer is scored: exact match and F1 as SQuAD has them (Rajpurkar et al. 2016, section 6.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised_answer(text: str) -> str:
    """Lower case, without punctuation and articles, white space collapsed."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is one of the answers, normalised."""
    return float(any(normalised_answer(prediction) == normalised_answer(a) for a in answers))


def contains(prediction: str, answers: Sequence[str]) -> float:
    """1 if one of the answers occurs in the prediction as whole words, normalised."""
    padded = f" {normalised_answer(prediction)} "
    return float(any(f" {normalised_answer(a)} " in padded for a in answers if normalised_answer(a)))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """The best F1 of words over the answers.

    Yes, no and noanswer count only whole, as in HotpotQA's and 2WikiMultihopQA's own scripts.
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
