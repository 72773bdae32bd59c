"""Retrieve when the model itself says that it needs a passage (Self-RAG, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from langgraph_dynrag.drafts.draft import DraftView, Verdict
from langgraph_dynrag.method import Method
from langgraph_dynrag.triggers.base import BaseTrigger
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import Bounds

Mode = Literal["adaptive", "always", "never"]


@dataclass(frozen=True, slots=True)
class Reflection(BaseTrigger):
    """Retrieves before a segment if p(yes) / (p(yes) + p(no)) exceeds a threshold.

    These are the model's probabilities for the answers to "is a passage needed next?" at the position where the segment
    would begin; see `langgraph_dynrag.reflection`. The trigger works only with a `SegmentSelection`.

    The paper's ratio (appendix A.3) ignores the third answer, `continue`. If there is a current passage and `continue`
    is the most likely answer, that passage is kept. By the ratio alone, a model that is certain to continue with it
    would retrieve again, because it considers `no` impossible.

    Args:
        delta: Threshold; the paper uses 0.2, and 0 for long answers with citations. None: retrieve if `yes` is the most
            likely answer (the paper's hard constraint).
        mode: `"adaptive"` asks the model; `"always"` and `"never"` do not.

    Raises:
        ConfigurationError: If `delta` is not a probability, or the mode is unknown.
    """

    delta: Annotated[float | None, Bounds(least=0, most=1, what="a probability between 0 and 1, or None,")] = 0.2
    mode: Mode = "adaptive"

    def check_with(self, settings: Method) -> None:
        """Refuse `Settings` without a segment selection.

        Raises:
            ConfigurationError: If `settings.selection` is None.
        """
        if settings.selection is None:
            raise ConfigurationError(
                f"{self} decides before a segment is written, but selection is None: add "
                "selection=SegmentSelection(), or use preset='self_rag'"
            )

    @property
    def asks(self) -> bool:
        """Whether the trigger needs the model's answer."""
        return self.mode == "adaptive"

    def judge(self, view: DraftView) -> Verdict:
        """Compare p(yes) / (p(yes) + p(no)) with the threshold."""
        if self.mode != "adaptive":
            return Verdict(self.mode == "always", f"{self.mode} retrieves", trigger="reflection")
        if view.retrieval is None:
            return Verdict(False, "the model was not asked", threshold=self.delta, trigger="reflection")
        p = view.retrieval
        share = wanted(p)
        answer = max(p, key=lambda name: p[name])
        if self.delta is None:
            word = f"the likeliest answer is {answer}, {p[answer]:.3f}"
            return Verdict(answer == "yes", word, score=share, trigger="reflection")
        if answer == "continue":
            word = f"the current passage suffices, {p['continue']:.3f}"
            return Verdict(False, word, score=share, threshold=self.delta, trigger="reflection")
        retrieve = share > self.delta
        word = f"retrieval wanted {share:.3f} {'>' if retrieve else '<='} {self.delta:g}"
        return Verdict(retrieve, word, score=share, threshold=self.delta, trigger="reflection")


def wanted(p: Mapping[str, float]) -> float:
    """Return p(yes) / (p(yes) + p(no)), which the threshold is compared with (appendix A.3)."""
    yes = p.get("yes", 0.0)
    total = yes + p.get("no", 0.0)
    return yes / total if total > 0 else 0.0
