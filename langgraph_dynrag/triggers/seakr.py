"""SeaKR's trigger (Yao et al. 2024): check whether the model knows what it is about to say.

Several continuations are sampled at the beginning of the sentence. If their hidden states are far apart, the model does
not know. The formula is in `langgraph_dynrag.seakr.uncertainty`. The published threshold, -6, applies to 20 samples of
a 7B model and to the hidden states that the published code reads (`SampleSpec(state="mlp")`). With 20 samples, hardly
anything but identical samples is below it; with 5, not even those are, since m identical states `z` already have an
uncertainty of `((m - 1) log alpha + log(m |z|^2)) / m`. Fewer samples or another model require a different threshold.
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
    """Retrieves for a sentence if samples of it have an uncertainty above the threshold.

    Args:
        threshold: Uncertainty threshold; the published delta by default.
        sampling: Number of samples and sampling parameters.
        alpha: Regularisation of the determinant.

    Raises:
        ConfigurationError: If the threshold is not finite or alpha is not positive.
    """

    threshold: float = -6.0
    sampling: SampleSpec = field(default_factory=SampleSpec)
    alpha: Annotated[float, Bounds(above=0)] = 1e-3

    needs = frozenset({"end_states"})

    def judge(self, view: DraftView) -> Verdict:
        """Sample continuations and compare their uncertainty; a positive verdict covers the whole sentence."""
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
