"""LlamaIndex instrumentation events about the training of adapters."""

from __future__ import annotations

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.base import BaseEvent

from llamaindex_prag.progress import JobStage, JobStatus

dispatcher = get_dispatcher(__name__)


class AdapterTrainingEvent(BaseEvent):
    """Progress of adapter training, sent when it begins and a few times per second."""

    documents: list[str]
    """Names of the documents being processed."""
    stage: JobStage
    """Current stage of the job."""
    made: int
    """Number of finished documents."""
    of: int
    """Total number of documents."""
    part: float
    """Finished fraction of the whole job, 0 to 1."""
    seconds: float
    """Seconds since the job began."""
    left: float
    """Estimated seconds left."""
    estimated: float
    """Estimated seconds of the whole job."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name used in traces."""
        return "AdapterTrainingEvent"


def dispatch(advance: JobStatus) -> None:
    """Send a job's status to LlamaIndex's event handlers."""
    dispatcher.event(AdapterTrainingEvent(**advance.to_dict()))
