"""Asks the adapter of each passage alone, and measures which of them knows more than the base model.

    gain_i = log p_i(a_i | q) - log p_0(a_i | q),    a_i: the greedy answer under adapter i alone

p_0 is the base model. An adapter that knows nothing about the question answers what the base model would answer anyway,
with a gain near 0, or a guess. If no gain reaches the bound, no adapter acts. All answers are generated in one batch,
and scored under the base model in another; adapters that act from the answer on share the prompt's keys and values.
The sum runs over the whole answer: the terms of later tokens have either sign and no bound, so that no ranking is
certain before the answers have ended.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from llamaindex_prag.adapter_model import LocalModel
from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.routing import RoutingScores
from llamaindex_prag.prompts import clean_answer, prompt_ids
from rag_backbone.checks import shown
from rag_backbone.engine.requests import Request
from rag_backbone.errors import ConfigurationError

ANSWER_TOKENS = 24
"""Token limit of an adapter's answer: long enough to name something, short enough for many documents."""
_REMEMBERED = 64
"""Number of questions whose answers are cached, since a graph places the same passages several times."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An adapter's answer, and its gain in nats over the base model."""

    text: str
    gain: float


class AskedAdapters:
    """Asks adapters one question each, in one batch.

    Args:
        model: The model with its adapters.
        tokens: Token limit of an answer.
    """

    def __init__(self, model: LocalModel, *, tokens: int = ANSWER_TOKENS) -> None:
        if tokens < 1:
            raise ConfigurationError(f"tokens is {tokens}; at least 1 is needed")
        self._model = model
        self._tokens = tokens
        self._known: OrderedDict[Hashable, list[Answer]] = OrderedDict()
        self._lock = threading.Lock()

    def answers(self, question: str, keys: Sequence[AdapterKey]) -> list[Answer]:
        """Return what each adapter alone answers.

        Raises:
            ConfigurationError: If the question is blank.
            AdapterMissingError: If an adapter is missing.
        """
        if not question.strip():
            raise ConfigurationError(f"the question is {shown(question)}; adapters can only be asked a question")
        alone = [one for key in keys if (one := self._model.select([key])) is not None]
        about = (question, tuple(one.cache_key for one in alone))
        with self._lock:
            if (known := self._known.get(about)) is not None:
                self._known.move_to_end(about)
                return known
        engine = self._model.lm.engine
        prompt = prompt_ids(self._model.lm.tokenizer, question)
        said = engine.generate_batch([Request(prompt, self._tokens, adapters=one) for one in alone])
        base = iter(engine.score_batch(prompt, [answer.token_ids for answer in said if answer.steps]))
        found = []
        for answer in said:
            gain = 0.0
            if answer.steps:
                gain = sum(step.logprob for step in answer.steps) - float(next(base).logprobs.sum())
            found.append(Answer(clean_answer(answer.text), gain))
        with self._lock:
            self._known[about] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found


class AskRouter:
    """Scores passages by the gains of their adapters' answers.

    Args:
        asked: Asks the adapters.
        bound: Gain in nats below which no adapter acts; 0 lets the best one act whenever it gains anything.
    """

    def __init__(self, asked: AskedAdapters, *, bound: float = 0.0) -> None:
        if bound < 0:
            raise ConfigurationError(f"bound is {bound}; it is a gain in nats, at least 0")
        self._asked = asked
        self._bound = bound

    def scores(
        self, question: str, candidates: Sequence[Candidate], keys: Sequence[AdapterKey | None]
    ) -> RoutingScores:
        """Return the gains; passages without an adapter are not asked. See `Router`."""
        distinct = list(dict.fromkeys(key for key in keys if key is not None))
        if not distinct or not question.strip():
            return RoutingScores(tuple(c.score for c in candidates))
        found = dict(zip(distinct, self._asked.answers(question, distinct), strict=True))
        scores = tuple(None if key is None else found[key].gain for key in keys)
        best = max(answer.gain for answer in found.values())
        refused = ""
        if not best > self._bound:
            refused = f"no adapter answers {self._bound:g} nats better than the base model; the best gains {best:.2g}"
        return RoutingScores(scores, tuple(None if key is None else found[key].text for key in keys), refused)
