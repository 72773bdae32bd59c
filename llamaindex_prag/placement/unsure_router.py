"""Lets an adapter act only where the base model is unsure of its own answer.

    p(q) = product_i p_0(t_i | q, t_<i),    t: the greedy answer of the base model p_0 without any passage

What a small model knows, it often knows by heart and says with a high probability. The adapter of a passage that does
not answer the question overwrites such an answer as readily as a guess, so none acts if p(q) reaches the bound. The
product only falls as the answer grows, so generation ends at the token that takes it below the bound: for most
questions one of the first three. The texts of such passages overwrite it as well (docs/results-parametric.md), so this
is a way to choose documents for a model that may answer alone, and not for retrieved passages, which would be in the
prompt where none acts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from llamaindex_prag.adapter_model import LocalModel
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.placement.ask_router import ANSWER_TOKENS
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.routing import Router, RoutingScores
from llamaindex_prag.prompts import clean_answer, prompt_ids
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import TokenStep
from rag_backbone.errors import ConfigurationError

BOUND = 0.37
"""Probability of its own answer from which the model is sure of it: e to the -1, rounded. On SQuAD's dev questions,
bounds from 0.05 to 0.6 do about as well (docs/results-parametric.md)."""


class UnsureRouter:
    """Scores passages as another router does, and refuses them all where the model is sure of its own answer.

    Args:
        router: Scores the passages.
        model: The model whose own answer counts.
        bound: Probability of the whole answer, above 0 and at most 1, from which no adapter acts.
    """

    def __init__(self, router: Router, model: LocalModel, *, bound: float = BOUND) -> None:
        if not 0 < bound <= 1:
            raise ConfigurationError(f"bound is {bound}; it is a probability, above 0 and at most 1")
        self._router = router
        self._model = model
        self._bound = bound

    def scores(
        self, question: str, candidates: Sequence[Candidate], keys: Sequence[AdapterKey | None]
    ) -> RoutingScores:
        """Return the other router's scores; see `Router`."""
        found = self._router.scores(question, candidates, keys)
        if found.refused or not candidates or not question.strip():
            return found
        sure = own_answer(self._model, question, self._bound)
        if sure is None:
            return found
        text, probability = sure
        return replace(
            found,
            refused=f"the model is sure of its own answer, {text!r}: its probability is {probability:.2f} "
            f"(bound {self._bound:g})",
        )


def own_answer(model: LocalModel, question: str, bound: float) -> tuple[str, float] | None:
    """Return the base model's answer and its probability, or None if that is below the bound.

    The answer has at most `ANSWER_TOKENS` tokens; its end does not count.
    """
    least, total = math.log(bound), 0.0

    def unlikely(step: TokenStep) -> bool:
        nonlocal total
        total += step.logprob
        return total < least

    prompt = prompt_ids(model.lm.tokenizer, question)
    said = model.lm.engine.generate(Request(prompt, ANSWER_TOKENS, stop_when=unlikely))
    text = clean_answer(said.text)
    return (text, math.exp(total)) if text and total >= least else None
