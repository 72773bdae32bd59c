"""The workers of a job: starts them, gives each one batch at a time, and replaces those that die.

    waiting batches -> an idle worker -> results, which the caller stores before the next batch is waited for
    a worker died -> another one is started, its batch is trained again; after `_DEATHS` deaths, passage by passage
    training raised -> its batch is trained again passage by passage
    a passage alone still kills or raises -> a result without an adapter, which says so

Ray restarts nothing itself, so that each death is counted. One batch per worker bounds what is in flight, and what a
death costs. A worker that dies with its node does not count against its batch. A passage that is trained alone gets an
adapter whose last bits differ from those of one trained with others. Knows no store.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.cluster.batches import Batch
from llamaindex_prag.cluster.environment import Environment
from llamaindex_prag.cluster.worker import Worker, WorkerOptions
from llamaindex_prag.cluster.worker_store import SideEntries
from llamaindex_prag.jobs.pace import Pace
from llamaindex_prag.parametrize import Result, name_of
from rag_backbone.checks import clause
from rag_backbone.errors import AdapterError, ConfigurationError

logger = logging.getLogger(__name__)

_DEATHS = 3
"""Number of workers that may die with a batch before its passages are trained alone, and with a passage alone."""
_FRUITLESS = 24
"""Number of deaths and failures in a row, without one trained passage, after which a job gives up."""
_GRACE = 60.0
"""Seconds that ready workers wait for the others, so that a node is refused before anything is trained."""

Trained = tuple[list[Result], SideEntries]


@dataclass(frozen=True, slots=True)
class _Member:
    """A worker that runs; `actor` is Ray's handle."""

    actor: Any
    node: str


class WorkerPool:
    """Workers on the nodes of a cluster.

    Args:
        options: What each worker trains with.
        expected: The driver's environment, which the workers' must equal.
        workers: Number of workers.
        num_cpus: CPUs of a worker, which is also its number of threads.
        num_gpus: GPUs of a worker; a fraction shares one.
        start_timeout: Seconds within which the first worker has to be ready.
    """

    def __init__(
        self,
        options: WorkerOptions,
        expected: Environment,
        *,
        workers: int,
        num_cpus: float,
        num_gpus: float,
        start_timeout: float,
    ) -> None:
        self.size = workers
        """Number of workers, those that are being started included."""
        self._expected, self._timeout = expected, start_timeout
        remote = ray.remote(Worker).options(
            num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._create: Callable[[], Any] = lambda: remote.remote(options)
        self._starting: dict[Any, Any] = {}
        """Actors by the reference of what `Worker.start` returns."""
        self._idle: list[_Member] = []
        self._busy: dict[Any, tuple[_Member, Batch]] = {}
        """Worker and batch by the reference of what `Worker.train` returns."""
        self._fruitless = 0
        for _ in range(workers):
            self._begin()

    def start(self) -> None:
        """Wait until the workers are ready, or some are and the cluster has no room for the others at the moment.

        Raises:
            ConfigurationError: If a node has other versions or another model than the driver, or no worker could start.
        """
        while not self._idle:
            self._started(self._next())
        others = list(self._starting)
        ready, _ = ray.wait(others, num_returns=len(others), timeout=_GRACE) if others else ([], [])
        for reference in ready:
            self._started(reference)

    def pace(self) -> Pace:
        """Return the pace of a ready worker's node."""
        pace: Pace = ray.get(self._idle[0].actor.pace.remote())
        return pace

    def run(
        self, batches: Sequence[Batch], send: Callable[[Batch], tuple[Any, ...]]
    ) -> Iterator[tuple[Batch, Trained]]:
        """Train batches, and yield each with its results as soon as it is done.

        Args:
            batches: The batches, in the order in which they are started.
            send: Returns the arguments of `Worker.train` for a batch.

        Raises:
            AdapterError: If workers keep dying or failing without training anything.
            ConfigurationError: If a worker that was started later differs from the driver.
        """
        waiting = deque(batches)

        def assign() -> None:
            while waiting and self._idle:
                member, batch = self._idle.pop(), waiting.popleft()
                self._busy[member.actor.train.remote(*send(batch))] = member, batch

        while waiting or self._busy:
            assign()
            reference = self._next()
            if reference in self._starting:
                self._started(reference)
                continue
            member, batch = self._busy.pop(reference)
            try:
                trained: Trained = ray.get(reference)
            except RayTaskError as error:
                self._idle.append(member)
                again = self._raised(batch, error)
            except RayError as error:  # also if only its results were lost with the node
                again = self._died(member, batch, error)
            else:
                self._idle.append(member)
                self._fruitless = 0
                assign()  # the worker goes on while the results are stored
                yield batch, trained
                continue
            if isinstance(again, Result):
                yield batch, ([again], {})
            else:
                waiting.extendleft(reversed(again))

    def close(self) -> None:
        """End all workers."""
        members = [member for member, _ in self._busy.values()] + self._idle
        for actor in [*(member.actor for member in members), *self._starting.values()]:
            ray.kill(actor)
        self._starting, self._busy, self._idle = {}, {}, []

    def _begin(self) -> None:
        actor = self._create()
        self._starting[actor.start.remote()] = actor

    def _next(self) -> Any:
        """Wait for the next worker that is done or ready."""
        pending = [*self._busy, *self._starting]
        ready, _ = ray.wait(pending, num_returns=1, timeout=None if self._busy else self._timeout)
        if not ready:
            raise ConfigurationError(
                f"no worker of {len(self._starting)} was ready within {self._timeout:g} s: the cluster's CPUs or GPUs "
                "are in use, or loading the model takes longer; wait for other jobs, or raise start_timeout"
            )
        return ready[0]

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            found: Environment = ray.get(reference)
        except RayTaskError as error:
            raise ConfigurationError(f"a worker could not start: {clause(_cause(error))}") from error
        except RayError as error:
            self._count(error)
            self._begin()
            return
        if differences := self._expected.differences(found):
            ray.kill(actor)
            raise ConfigurationError(
                f"the worker on the node {found.node[:8]} ({found.host}) would train other adapters: "
                f"{'; '.join(differences)}. Install the driver's versions and model there."
            )
        self._idle.append(_Member(actor, found.node))

    def _died(self, member: _Member, batch: Batch, error: RayError) -> list[Batch] | Result:
        ray.kill(member.actor)  # one that is only unreachable must not go on beside its replacement
        self._count(error)
        self._begin()
        of_node = any(node["NodeID"] == member.node and not node["Alive"] for node in ray.nodes())
        logger.warning(
            "a worker on the node %s died%s; what it trained is trained again: %s",
            member.node[:8],
            " with its node" if of_node else "",
            ", ".join(map(name_of, batch.passages)),
        )
        died = replace(batch, deaths=batch.deaths + (not of_node))
        if died.deaths < _DEATHS:
            return [died]
        if len(batch.passages) > 1:
            return batch.alone()
        return _given_up(batch, f"{_DEATHS} workers in a row died while they trained it")

    def _raised(self, batch: Batch, error: RayTaskError) -> list[Batch] | Result:
        self._count(error)
        logger.debug("training raised", exc_info=error)
        return (
            batch.alone() if len(batch.passages) > 1 else _given_up(batch, f"training failed: {clause(_cause(error))}")
        )

    def _count(self, error: Exception) -> None:
        self._fruitless += 1
        if self._fruitless >= _FRUITLESS:
            raise AdapterError(
                f"{self._fruitless} workers in a row died or failed and trained nothing; what was trained before is "
                f"stored. The last one: {clause(error)}"
            ) from error


def _cause(error: RayTaskError) -> object:
    """Return the error that was raised on the node, without Ray's account of where."""
    return getattr(error, "cause", None) or error


def _given_up(batch: Batch, why: str) -> Result:
    (passage,) = batch.passages
    return Result(text_hash(passage.text), None, {}, (why,))
