"""A learned trigger: the probability that retrieving at a sentence would help, from features that cost nothing.

`calibrate(..., trigger="learned")` trains one for a model and a prompt. It ranks sentences better than the least token
probability, also on data that it was not trained on (`docs/results-triggers.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from langgraph_dynrag.drafts.draft import DraftView, Signal, Verdict
from langgraph_dynrag.method import Retrieving
from langgraph_dynrag.triggers.base import BaseTrigger
from langgraph_dynrag.triggers.features import FEATURES, features_of, signals_of
from langgraph_dynrag.triggers.learned_model import LearnedModel
from langgraph_dynrag.triggers.policy import Policy
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.typed_fields import Probability, check_fields


@runtime_checkable
class KnowsFrequencies(Protocol):
    """A retriever that knows how many of its documents contain a word, such as `BM25Retriever`."""

    def document_frequency(self, word: str) -> int | None:
        """Return the number of documents that contain a word; None if it is not a word that the index holds."""


@dataclass(frozen=True, slots=True, repr=False)
class LearnedTrigger(BaseTrigger):
    """Retrieves for a sentence if the learned probability that this helps reaches a threshold.

    The evidence is needed at the sentence's least probable token. The verdict's reason states the probability, the
    threshold and the policy.

    Args:
        model: The model, or what JSON holds of it.
        threshold: Threshold of the probability; 0 always retrieves.
        policy: What the threshold was chosen for; None: it was set by hand.
        passages: Number of passages per search, by probability: with `((0, 1), (0.6, 5))`, one, and from 0.6 on five.
            Below the first one, and by default, it is the `k` of the settings.
        abstain: Probability from which on, if passages are already in the prompt, the answer is given up instead of
            searching once more; None: never.
        unknown: The short answer then.
        abstain_policy: What `abstain` was chosen for; None: it was set by hand.

    Raises:
        ConfigurationError: If the model is invalid, the threshold is not a probability, `passages` do not ascend, or
            `abstain` is below the threshold.
    """

    model: LearnedModel
    threshold: Probability = 0.5
    policy: Policy | None = None
    passages: tuple[tuple[Probability, int], ...] = ()
    abstain: Probability | None = None
    unknown: str = "I do not know."
    abstain_policy: Policy | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", LearnedModel.of(self.model))
        for name in ("policy", "abstain_policy"):
            given: object = getattr(self, name)
            if isinstance(given, Mapping):
                object.__setattr__(self, name, Policy.of(given))
        listed: object = self.passages
        if isinstance(listed, list | tuple):  # JSON has lists
            steps = tuple(tuple(step) if isinstance(step, list) else step for step in listed)
            object.__setattr__(self, "passages", steps)
        check_fields(self, "the learned trigger's ")
        if self.abstain is not None and self.abstain < self.threshold:
            raise ConfigurationError(
                f"the learned trigger's abstain is {self.abstain:g}, below its threshold {self.threshold:g}; it would "
                "give up where it need not search"
            )
        bounds = [p for p, _ in self.passages]
        if bounds != sorted(set(bounds)) or any(k < 1 for _, k in self.passages):
            raise ConfigurationError(
                f"the learned trigger's passages are {self.passages}; ascending probabilities, each with at least one "
                "passage, are needed: ((0, 1), (0.6, 5))"
            )

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that the model's features and its probe read, and the probabilities that give the position."""
        states: frozenset[Signal] = frozenset() if self.model.probe is None else frozenset({"hidden_states"})
        return signals_of(self.model.features) | states | {"logprob"}

    def check_with(self, settings: Retrieving) -> None:
        """Refuse a retriever that does not know what the model's features ask of the index.

        Raises:
            SignalUnavailableError: Naming the features.
        """
        asking = [name for name in self.model.features if FEATURES[name].index]
        if asking and not isinstance(settings.retriever, KnowsFrequencies):
            raise SignalUnavailableError(
                f"{self!r} weighs {', '.join(asking)}, for which the retriever has to know how many documents contain "
                f"a word (document_frequency), and {type(settings.retriever).__name__} does not. Use BM25Retriever, or "
                "calibrate a trigger with this retriever."
            )

    def with_threshold(self, value: float) -> LearnedTrigger:
        """Return a copy with a threshold set by hand, to which the policy no longer applies."""
        return replace(self, threshold=value, policy=None)

    def judge(self, view: DraftView) -> Verdict:
        """Compare the probability with the threshold."""
        if not view.unit.text.strip():
            return Verdict(False, "nothing was written", threshold=self.threshold, trigger="learned")
        inputs = features_of(view, self.model.features)
        if (probe := self.model.probe) is not None:
            assert view.read_states is not None  # because of `needs`
            inputs = (*inputs, probe.log_odds(view.read_states((probe.depth,))[0]))
        p = self.model.probability(inputs)
        if self.abstain is not None and p >= self.abstain and view.passages:
            reason = f"p {p:.3f} >= {self.abstain:.3g} with passages in the prompt{_stated(self.abstain_policy)}"
            return Verdict(False, reason, (), p, self.abstain, trigger="learned", answer=self.unknown)
        retrieve = p >= self.threshold
        k = next((k for bound, k in reversed(self.passages) if p >= bound), None) if retrieve else None
        amount = "" if k is None else f", {k} passage{'' if k == 1 else 's'}"
        reason = f"p {p:.3f} {'>=' if retrieve else '<'} {self.threshold:.3g}{amount}{_stated(self.policy)}"
        logprobs = view.unit.logprobs
        at = min(range(len(logprobs)), key=logprobs.__getitem__) if retrieve else None
        hits = () if at is None else (at,)
        return Verdict(retrieve, reason, (), p, self.threshold, at, hits, "learned", k=k)

    def __repr__(self) -> str:
        about: list[Any] = [f"{self.model.kind}, {len(self.model.features)} features", f"threshold={self.threshold:g}"]
        about += [] if self.model.probe is None else [repr(self.model.probe)]
        return f"LearnedTrigger({', '.join(about)})"


def _stated(policy: Policy | None) -> str:
    return "" if policy is None else f" ({policy})"
