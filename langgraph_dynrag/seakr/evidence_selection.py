"""Which of the passages found are used: what a selector is, and SeaKR's.

Without a selector all of them are. A selector may try passages out: it is handed a function that samples continuations
under any set of them. It knows nothing of prompts and models.
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
"""Samples continuations of the accepted text under the given passages."""


@dataclass(frozen=True, slots=True)
class SelectedEvidence:
    """The passages that are used, and why."""

    passages: list[Passage]
    record: Mapping[str, Any]
    """Plain data for the trace."""


@runtime_checkable
class EvidenceSelector(Protocol):
    """Chooses among the passages that a search found."""

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that it reads."""
        ...

    def select(self, found: Sequence[Passage], kept: Sequence[Passage], try_out: TryOut) -> SelectedEvidence:
        """Choose.

        Args:
            found: The passages found.
            kept: The passages in use already.
            try_out: Samples under passages. It takes as long as that takes.
        """
        ...


@dataclass(frozen=True, slots=True)
class LeastUncertain:
    """SeaKR's re-ranking (Yao et al. 2024): the passage under which the model is the least uncertain.

    Each passage found that is not in use is tried out together with those that are; one is kept. Where every sample is
    empty under all of them, the first one found is.

    Args:
        sampling: How many samples for each passage, and how.
        alpha: Of the determinant.

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
        """The passage with the least U; none if all are in use already."""
        known = {p["id"] for p in kept}
        candidates = [p for p in found if p["id"] not in known]
        tried = [try_out([*kept, p], self.sampling) for p in candidates]
        scores = [uncertainty(ends, self.alpha) for ends in tried]
        # None, where every sample is empty, is more than any number.
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
