"""SeaKR's trigger (Yao et al. 2024): does the model know what it is about to say?

Several continuations are sampled where the sentence begins. If their hidden states lie apart, it does not.
`langgraph_dynrag.seakr.uncertainty` has the formula. The published threshold, -6, belongs to 20 samples of a model of
7B, and to the code's states (`SampleSpec(state="mlp")`). With 20 samples hardly anything but equal ones is below it;
with 5 not even those are, since m equal states `z` have `((m - 1) log alpha + log(m |z|^2)) / m` already. Fewer
samples, or another model, want a threshold of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from langgraph_dynrag.drafts.draft import DraftView, Verdict
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.seakr.uncertainty import uncertainty
from langgraph_dynrag.triggers.base import BaseTrigger
from rag_backbone.typed_fields import Bounds

_NAME = "self-aware uncertainty"


@dataclass(frozen=True, slots=True)
class SelfAwareUncertainty(BaseTrigger):
    """Retrieves for a sentence if the samples drawn in its place have an uncertainty above the threshold.

    Args:
        threshold: The published delta.
        sampling: How many samples, and how.
        alpha: Of the determinant.

    Raises:
        ConfigurationError: If the threshold is not finite or alpha not positive.
    """

    threshold: float = -6.0
    sampling: SampleSpec = field(default_factory=SampleSpec)
    alpha: Annotated[float, Bounds(above=0)] = 1e-3

    needs = frozenset({"end_states"})

    def judge(self, view: DraftView) -> Verdict:
        """Sample, and compare. The whole sentence is what lacks knowledge."""
        if not view.unit.text.strip():
            return Verdict(True, "nothing was written", threshold=self.threshold, position=0, trigger=_NAME)
        assert view.sample_ends is not None
        ends = view.sample_ends(self.sampling)
        score = uncertainty(ends, self.alpha)
        retrieve = score is None or score > self.threshold
        reason = (
            "every sample was empty"
            if score is None
            else f"{_NAME} {score:.3f} {'>' if retrieve else '<='} {self.threshold:g} of {len(ends.texts)} samples"
        )
        position = 0 if retrieve else None
        return Verdict(
            retrieve, reason, (), score, self.threshold, position, (0,) if retrieve else (), _NAME, dict(ends.cost)
        )
