"""Progress of a training job: one protocol for the command line, Python, and both frameworks.

    job -> Meter.stage("questions" | "teacher" | "training") -> finished fractions of it -> Progress(JobStatus)

A stage's share of the whole is its estimated duration. So one progress bar covers all stages, and advances with every
generated token and every forward pass of the training. Knows nothing of models.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from tqdm.auto import tqdm

from rag_backbone.notices import NOTICE

JobStage = Literal["questions", "teacher", "training"]
"""Generating questions about passages; answering them with the passage in the context; training."""
STAGES: tuple[JobStage, ...] = get_args(JobStage)

Tick = Callable[[float], None]
"""Called with each finished fraction of a stage; the fractions add up to 1."""

_TOLD_AS: dict[JobStage, str] = {
    "questions": "questions",
    "teacher": "the teacher's answers",
    "training": "training",
}
_INTERVAL = 0.25
"""Minimum number of seconds between two calls, except at the beginning and end of a stage."""
_LOGGED_EVERY = 10.0


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Current state of a job."""

    stage: JobStage
    documents: tuple[str, ...]
    """Names of the documents in progress."""
    made: int
    """Number of finished documents."""
    of: int
    part: float
    """Finished fraction of the whole job, 0 to 1."""
    seconds: float
    """Seconds since the start of the job."""
    left: float
    """Remaining seconds: by the estimate at first, then extrapolated from the job itself."""
    estimated: float
    """Estimated duration of the whole job in seconds."""

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON-serialisable data."""
        return asdict(self) | {"documents": list(self.documents)}

    def __str__(self) -> str:
        return f"{_TOLD_AS[self.stage]}, {self.made} of {self.of} done, about {duration(self.left)} left"


Progress = Callable[[JobStatus], None]
"""Callback for a job's progress, called in the thread that does the work, at most a few times per second."""


class Meter:
    """Accumulates the progress of a job and reports it.

    Args:
        watch: The callbacks.
        seconds: Estimated duration of the whole job by stage.
        documents: Number of documents.
    """

    def __init__(self, watch: Sequence[Progress], seconds: Mapping[JobStage, float], documents: int) -> None:
        self._watch, self._documents = watch, documents
        self._estimated = sum(seconds.values())
        self._total = max(self._estimated, 1e-9)
        self._done = 0.0
        """Finished part of the estimate in seconds."""
        self._made = 0
        self._names: tuple[str, ...] = ()
        self._stage: JobStage = "questions"
        self._started = time.perf_counter()
        self._told = 0.0
        self.planned: dict[JobStage, float] = {}
        """Estimated seconds by stage of what is finished."""
        self.took: dict[JobStage, float] = {}
        """Actual seconds by stage of what is finished."""

    def begin(self, names: Sequence[str]) -> None:
        """Set the documents that are processed next."""
        self._names = tuple(names)

    def made(self) -> None:
        """Count one more finished document, with or without an adapter."""
        self._made += 1
        self._tell(now=True)

    @contextmanager
    def stage(self, stage: JobStage, seconds: float) -> Iterator[Tick]:
        """Enter a stage with this estimated duration; yields a callback for its finished fractions."""
        self._stage, begun, started, done = stage, self._done, time.perf_counter(), 0.0
        self._tell(now=True)

        def tick(part: float) -> None:
            nonlocal done
            done = min(done + part, 1.0)
            self._done = begun + done * seconds
            self._tell()

        yield tick
        self._done = begun + seconds
        self.planned[stage] = self.planned.get(stage, 0.0) + seconds
        self.took[stage] = self.took.get(stage, 0.0) + time.perf_counter() - started
        self._tell(now=True)

    def _tell(self, *, now: bool = False) -> None:
        elapsed = time.perf_counter() - self._started
        if not self._watch or not (now or elapsed - self._told >= _INTERVAL):
            return
        self._told = elapsed
        part = min(self._done / self._total, 1.0)
        # Once a fair part of the job is done, its own pace predicts the rest better than the estimate.
        pace = elapsed / self._done if part >= 0.05 else 1.0
        left = max(self._total - self._done, 0.0) * pace
        found = JobStatus(self._stage, self._names, self._made, self._documents, part, elapsed, left, self._estimated)
        for watch in self._watch:
            watch(found)


@contextmanager
def bar(documents: int) -> Iterator[Progress]:
    """Show a progress bar over a whole job: percentage, finished documents, current stage, and remaining time."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {unit} [{elapsed}]"  # before a postfix, tqdm would write ", "
    with tqdm(total=1.0, desc="parametrize", bar_format=form, unit=f"0/{documents} documents") as shown:

        def show(advance: JobStatus) -> None:
            names = advance.documents
            which = names[0] if len(names) == 1 else f"{len(names)} documents"
            state = f"{advance.made}/{advance.of} documents"
            if advance.made < advance.of:
                state += f", {_TOLD_AS[advance.stage]} of {which[:40]}, about {duration(advance.left)} left"
            shown.n, shown.unit = advance.part, state
            shown.refresh()

        yield show


def scaled(advance: Tick | None, by: float) -> Tick | None:
    """Return a tick whose fractions are multiplied by `by`; None stays None."""
    return None if advance is None else (lambda part: advance(part * by))


def each_token(advance: Tick, part: float) -> Callable[[object], bool]:
    """Return a `Request.stop_when` callback that advances by `part` with each generated token and never stops."""

    def written(_: object) -> bool:
        advance(part)
        return False

    return written


class WaitedFor:
    """Logs a job that a question waits for: its start at WARNING, then its progress.

    Args:
        logger: Logger of the class in which the question waits.
        then: Further callbacks.
    """

    def __init__(self, logger: logging.Logger, *then: Progress) -> None:
        self._logger, self._then = logger, then
        self._told: float | None = None

    def __call__(self, advance: JobStatus) -> None:
        """Log a new status, and pass it on."""
        if self._told is None:
            self._logger.warning(
                "a question waits while the adapter of %s is trained: about %s. Train adapters when documents are "
                "ingested (ParametrizeNodes, `dynprag parametrize`), or choose missing='context'",
                ", ".join(advance.documents),
                duration(advance.left),
            )
            self._told = advance.seconds
        elif advance.seconds - self._told >= _LOGGED_EVERY:
            self._told = advance.seconds
            self._logger.info(
                "%s: %.0f %%, %s", ", ".join(advance.documents), 100 * advance.part, advance, extra=NOTICE
            )
        for watch in self._then:
            watch(advance)


def duration(seconds: float) -> str:
    """Format a rough duration for people: "40 s", "9 min", "2.5 h"."""
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
