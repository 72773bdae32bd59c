"""LlamaIndex's instrumentation events while adapters are trained."""

from __future__ import annotations

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.base import BaseEvent

from llamaindex_prag.progress import JobStage, JobStatus

dispatcher = get_dispatcher(__name__)


class AdapterTrainingEvent(BaseEvent):
    """How far the training of adapters is: sent when it begins, and a few times a second."""

    documents: list[str]
    """Names of those that are worked on."""
    stage: JobStage
    made: int
    """Documents that are done."""
    of: int
    part: float
    """Of the whole, 0 to 1."""
    seconds: float
    """Since it began."""
    left: float
    """Seconds."""
    estimated: float
    """Seconds that the whole was estimated to take."""

    @classmethod
    def class_name(cls) -> str:
        """Name in traces."""
        return "AdapterTrainingEvent"


def dispatch(advance: JobStatus) -> None:
    """Send it to LlamaIndex's event handlers."""
    dispatcher.event(AdapterTrainingEvent(**advance.to_dict()))
