"""How far a job of making adapters is: one protocol for the command line, Python, and both frameworks.

    job -> Meter.stage("questions" | "teacher" | "training") -> parts of it, as they are done -> Progress(Advance)

A stage's share of the whole is the time that it was estimated to take. So one bar goes through all of them, and moves
with every token that is written and every forward that is trained. Knows nothing of models.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tqdm.auto import tqdm

from rag_backbone.notices import NOTICE

JobStage = Literal["questions", "teacher", "training"]
"""Asking questions about passages; having the model answer them with the passage before it; training."""

Tick = Callable[[float], None]
"""Told each part of a stage that is done; all of them together are 1."""

_TOLD_AS: dict[JobStage, str] = {
    "questions": "questions",
    "teacher": "the teacher's answers",
    "training": "training",
}
_INTERVAL = 0.25
"""Seconds between two calls at least, but where a stage begins or ends."""
_LOGGED_EVERY = 10.0


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job is."""

    stage: JobStage
    documents: tuple[str, ...]
    """Names of those that are worked on now."""
    made: int
    """Documents that are done."""
    of: int
    part: float
    """Of the whole job, 0 to 1."""
    seconds: float
    """Since it began."""
    left: float
    """Seconds, by the estimate at first and then by how it goes."""
    estimated: float
    """Seconds that the whole was estimated to take."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "stage": self.stage,
            "documents": list(self.documents),
            "made": self.made,
            "of": self.of,
            "part": self.part,
            "seconds": self.seconds,
            "left": self.left,
            "estimated": self.estimated,
        }

    def __str__(self) -> str:
        return f"{_TOLD_AS[self.stage]}, {self.made} of {self.of} done, about {duration(self.left)} left"


class Progress(Protocol):
    """Whoever is told. Called in the thread that works, a few times a second at most."""

    def __call__(self, advance: JobStatus, /) -> None:
        """Take note."""


class Meter:
    """Adds up what is done of a job, and tells.

    Args:
        watch: Who is told.
        seconds: By stage, what the whole was estimated to take.
        documents: How many there are.
    """

    def __init__(self, watch: Sequence[Progress], seconds: Mapping[JobStage, float], documents: int) -> None:
        self._watch, self._documents = watch, documents
        self._estimated = sum(seconds.values())
        self._total = max(self._estimated, 1e-9)
        self._done = 0.0
        """Seconds of the estimate that are done."""
        self._made = 0
        self._names: tuple[str, ...] = ()
        self._stage: JobStage = "questions"
        self._started = time.perf_counter()
        self._told = 0.0
        self.planned: dict[JobStage, float] = {}
        """Seconds by stage that what was done so far had been estimated to take."""
        self.took: dict[JobStage, float] = {}
        """And those that it took."""

    def begin(self, names: Sequence[str]) -> None:
        """These documents come next."""
        self._names = tuple(names)

    def made(self) -> None:
        """One more document is done, with or without an adapter."""
        self._made += 1
        self._tell(now=True)

    @contextmanager
    def stage(self, stage: JobStage, seconds: float) -> Iterator[Tick]:
        """A part of the work, of so many seconds by the estimate; gives what is to be called with each part of it."""
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
        # What has been done says more than the estimate, as soon as it is a fair part of the whole.
        pace = elapsed / self._done if part >= 0.05 else 1.0
        left = max(self._total - self._done, 0.0) * pace
        found = JobStatus(self._stage, self._names, self._made, self._documents, part, elapsed, left, self._estimated)
        for watch in self._watch:
            watch(found)


@contextmanager
def bar(documents: int) -> Iterator[Progress]:
    """A progress bar over a whole job: its percentage, documents done, the step at hand, and the time left."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {postfix} [{elapsed}]"
    with tqdm(total=1.0, desc="parametrize", bar_format=form) as shown:
        shown.set_postfix_str(f"0/{documents} documents")

        def show(advance: JobStatus) -> None:
            names = advance.documents
            which = names[0] if len(names) == 1 else f"{len(names)} documents"
            shown.n = advance.part
            shown.set_postfix_str(
                f"{advance.made}/{advance.of} documents, {_TOLD_AS[advance.stage]} of {which[:40]}, "
                f"about {duration(advance.left)} left"
            )

        yield show


def scaled(advance: Tick | None, by: float) -> Tick | None:
    """Advances by parts of a part."""
    return None if advance is None else (lambda part: advance(part * by))


def each_token(advance: Tick, part: float) -> Callable[[object], bool]:
    """What `Request.stop_when` takes, to advance by a part with each token that is written; it stops nothing."""

    def written(_: object) -> bool:
        advance(part)
        return False

    return written


class WaitedFor:
    """Logs a job that somebody's question waits for: at WARNING that it begins, then how far it is.

    Args:
        logger: Of the class in which the question waits.
        then: Who is told as well.
    """

    def __init__(self, logger: logging.Logger, *then: Progress) -> None:
        self._logger, self._then = logger, then
        self._told: float | None = None

    def __call__(self, advance: JobStatus) -> None:
        """Take note."""
        if self._told is None:
            self._logger.warning(
                "a question waits while the adapter of %s is trained: about %s. Make adapters when documents are "
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
    """A rough length of time for people: "40 s", "9 min", "2.5 h"."""
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
