"""Evidence selectors, which choose among the passages found, and SeaKR's selector.

Without a selector, all passages found are used. A selector can try passages out: it receives a function that samples
continuations under any set of them. Selectors know no prompts or models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, runtime_checkable

from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.evidence import Passage, name_of
from langgraph_dynrag.seakr.uncertainty import total_cost, uncertainty
from rag_backbone.typed_fields import Bounds, check_fields

TryOut = Callable[[Sequence[Passage], SampleSpec], SampledEnds]
"""Function that samples continuations of the accepted text under the given passages."""


@dataclass(frozen=True, slots=True)
class SelectedEvidence:
    """The passages to use, and why."""

    passages: list[Passage]
    record: Mapping[str, Any]
    """Plain data that describes the choice, for the trace."""


@runtime_checkable
class EvidenceSelector(Protocol):
    """Chooses among the passages that a search found."""

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that the selector reads."""

    def select(self, found: Sequence[Passage], kept: Sequence[Passage], try_out: TryOut) -> SelectedEvidence:
        """Choose passages.

        Args:
            found: The passages found.
            kept: The passages already in use.
            try_out: Samples continuations under passages, which takes as long as generating them.
        """


@dataclass(frozen=True, slots=True)
class LeastUncertain:
    """SeaKR's re-ranking (Yao et al. 2024): keep the passage under which the model is least uncertain.

    Each passage found that is not yet in use is tried out together with those that are, and one is kept. If all samples
    are empty under every passage, the first passage found is kept.

    Args:
        sampling: How to sample, and how many samples per passage.
        alpha: Regularisation term of the determinant.

    Raises:
        ConfigurationError: If alpha is not positive.
    """

    sampling: SampleSpec = field(default_factory=SampleSpec)
    alpha: Annotated[float, Bounds(above=0)] = 1e-3

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs(self) -> frozenset[Signal]:
        """Hidden states at the ends of samples."""
        return frozenset({"end_states"})

    def select(self, found: Sequence[Passage], kept: Sequence[Passage], try_out: TryOut) -> SelectedEvidence:
        """Return the passage with the lowest uncertainty U; none if all passages are already in use."""
        known = {p["id"] for p in kept}
        candidates = [p for p in found if p["id"] not in known]
        tried = [try_out([*kept, p], self.sampling) for p in candidates]
        scores = [uncertainty(ends, self.alpha) for ends in tried]
        # None means that every sample is empty, and ranks above any number.
        ranks = [math.inf if score is None else score for score in scores]
        chosen = [candidates[ranks.index(min(ranks))]] if ranks else []
        record = {
            "by": "least uncertain",
            "candidates": [
                {"id": p["id"], "title": name_of(p), "score": score}
                for p, score in zip(candidates, scores, strict=True)
            ],
            "kept": [p["id"] for p in chosen],
            "cost": total_cost([ends.cost for ends in tried]),
        }
        return SelectedEvidence(chosen, record)
