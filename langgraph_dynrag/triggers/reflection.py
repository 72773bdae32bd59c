"""Retrieving when the model itself says that it needs a passage (Self-RAG, section 3.3)."""

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

    The probabilities are those that the model gives to the answers of "is a passage needed next?" where the segment
    would begin: see `langgraph_dynrag.reflection`. It works with a `Selection` only.

    The paper's ratio (appendix A.3) knows no third answer. Where a passage is at hand and `continue` is the likeliest
    answer, that passage is kept: by the ratio alone, a model that is sure to go on with it would retrieve, because it
    takes `no` for impossible.

    Args:
        delta: The paper's threshold, 0.2 (0 for long answers with citations). None: retrieve where `yes` is the
            likeliest answer (the paper's hard constraint).
        mode: `"adaptive"` asks the model; `"always"` and `"never"` do not.

    Raises:
        ConfigurationError: If `delta` is no probability or the mode unknown.
    """

    delta: Annotated[float | None, Bounds(least=0, most=1, what="a probability between 0 and 1, or None,")] = 0.2
    mode: Mode = "adaptive"

    def check_with(self, settings: Method) -> None:
        """Refuse `Settings` without a selection."""
        if settings.selection is None:
            raise ConfigurationError(
                f"{self} decides before a segment is written, and selection is None: add selection=Selection(), or use "
                "preset='self_rag'"
            )

    @property
    def asks(self) -> bool:
        """Whether the model has to be asked."""
        return self.mode == "adaptive"

    def judge(self, view: DraftView) -> Verdict:
        """Compare the share of `yes` with the threshold."""
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
            word = f"the passage at hand serves, {p['continue']:.3f}"
            return Verdict(False, word, score=share, threshold=self.delta, trigger="reflection")
        retrieve = share > self.delta
        word = f"retrieval wanted {share:.3f} {'>' if retrieve else '<='} {self.delta:g}"
        return Verdict(retrieve, word, score=share, threshold=self.delta, trigger="reflection")


def wanted(p: Mapping[str, float]) -> float:
    """Return p(yes) / (p(yes) + p(no)), which the threshold is compared with (appendix A.3)."""
    yes = p.get("yes", 0.0)
    total = yes + p.get("no", 0.0)
    return yes / total if total > 0 else 0.0
