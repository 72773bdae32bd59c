"""Train the adapters of a corpus on a Ray cluster: augment and train in actors, store in the driver.

    driver   passages without an adapter -> batches -> ... -> store, owners, progress, report
    actors                                  batches -> questions, training -> adapters

Everything but the training is `Parametrizer`'s. The actors are plain ones rather than Ray Data's, which needs pandas
and fails or retries a block of rows without telling which document was to blame. The store is one machine's file, so
the driver alone writes it, and what it holds is what a job that was killed continues from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from llamaindex_prag.adapter_model import LocalModel
from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.adapters.start import start_key
from llamaindex_prag.augment.augmentation import Augmentation
from llamaindex_prag.augment.kept import entries
from llamaindex_prag.cluster.batches import Batch, batches_of
from llamaindex_prag.cluster.environment import Environment, versions
from llamaindex_prag.cluster.worker import WorkerOptions
from llamaindex_prag.jobs.estimate import Estimate
from llamaindex_prag.jobs.pace import Pace
from llamaindex_prag.parametrize import Job, Parametrizer, Report, Result
from llamaindex_prag.passages import Passage
from llamaindex_prag.progress import STAGES, Meter, Progress
from rag_backbone.errors import ConfigurationError
from rag_backbone.ray_cluster import check_resources, connected, require_ray

if TYPE_CHECKING:
    from llamaindex_prag.cluster.pool import WorkerPool


class RayParametrizer(Parametrizer):
    """Trains the adapters of passages in the workers of a Ray cluster; otherwise a `Parametrizer`.

    It is a context manager. The first call that needs workers connects to the cluster and starts them; they live until
    the block ends. If all passages have adapters, none is started.

    Args:
        model: Model, store and recipe. Here, the model only counts tokens.
        address: `"auto"` for the cluster of this machine or of `RAY_ADDRESS`, `"HOST:PORT"`, or `"local"` to start a
            cluster of this machine alone. A connection that this process already has is used in any case.
        workers: Maximum number of workers, each with a model of its own; None: as many as the nodes have room for.
        num_cpus: CPUs of a worker, which is also its number of threads.
        num_gpus: GPUs of a worker, which then trains on one; a fraction shares it.
        worker_model: Folder or Hub id of the model on the nodes, if it differs from the driver's. A model with another
            fingerprint is refused.
        documents_at_once: Number of passages that a worker trains together.
        tokens_at_once: Maximum number of padded tokens in a forward pass; None: chosen for the device.
        augmentations: Existing augmentations by `text_hash`, used instead of generating new ones.
        start_timeout: Seconds within which the workers have to be ready.

    Raises:
        MissingExtraError: If Ray is not installed.
        ConfigurationError: If a number is not possible, or the model was created in memory, so that nodes cannot load
            it. From the first call: if the cluster does not answer, has no room for a worker, or a node has other
            versions or another model than this process.

    Example:
        >>> with RayParametrizer(model, "10.0.0.5:6379", num_cpus=4) as parametrizer:  # doctest: +SKIP
        ...     print(parametrizer.estimate(passages))
        ...     print(parametrizer.parametrize(passages))
    """

    def __init__(
        self,
        model: LocalModel,
        address: str = "auto",
        *,
        workers: int | None = None,
        num_cpus: float = 1,
        num_gpus: float = 0,
        worker_model: str | None = None,
        documents_at_once: int = 8,
        tokens_at_once: int | None = None,
        augmentations: Mapping[str, Augmentation] | None = None,
        start_timeout: float = 600.0,
    ) -> None:
        require_ray()
        if num_cpus <= 0 or num_gpus < 0 or (workers is not None and workers < 1):
            raise ConfigurationError(
                f"workers is {workers}, num_cpus {num_cpus:g} and num_gpus {num_gpus:g}; there must be at least 1 "
                "worker, with more than 0 CPUs and at least 0 GPUs"
            )
        super().__init__(
            model, documents_at_once=documents_at_once, tokens_at_once=tokens_at_once, augmentations=augmentations
        )
        self._address, self._most = address, workers
        self._resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self._start_timeout = start_timeout
        self._options = WorkerOptions(
            model=_loaded_by_workers(model, worker_model, gpu=num_gpus > 0),
            recipe=model.recipe,
            start=_start(model),
            documents_at_once=documents_at_once,
            tokens_at_once=tokens_at_once,
            threads=max(int(num_cpus), 1),
        )
        self._open = ExitStack()
        self._pool: WorkerPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool = None
        self._open.close()

    def _workers(self, passages: int) -> WorkerPool:
        """Return the workers, and start at most one per group of passages at the first call."""
        if self._pool is None:
            self._open.enter_context(connected(self._address))
            from llamaindex_prag.cluster.pool import WorkerPool  # imports Ray

            groups = -(-passages // self._together)
            workers = min(self._most or groups, check_resources(**self._resources), groups)
            expected = Environment("", "", versions(), self.model.lm.fingerprint)
            pool = WorkerPool(
                self._options, expected, workers=workers, start_timeout=self._start_timeout, **self._resources
            )
            self._open.callback(pool.close)
            pool.start()
            self._pool = pool
        return self._pool

    def _results(self, passages: Sequence[Passage], job: Job) -> Iterator[Result]:
        if not passages:
            return
        pool = self._workers(len(passages))
        batches = batches_of(passages, self._together, pool.size, self._tokens)
        for batch, (results, side) in pool.run(batches, self._sent):
            for (table, key), value in side.items():
                self._store.put_json(table, key, value)
            done = {result.text for result in results}
            trained = [p for p in batch.passages if text_hash(p.text) in done]
            job.begin(trained)
            for stage in STAGES:
                with job.stage(stage, trained):
                    pass
            yield from results

    def _estimated(self, missing: Mapping[str, Passage]) -> Estimate:
        workers = self._workers(len(missing)).size if missing else 1
        return super()._estimated(missing).shared_by(workers)

    def _measured_pace(self) -> Pace:
        return self._workers(1).pace()

    def _correct_pace(self, meter: Meter) -> None:
        """Keep nothing: how long batches took includes their ways through the cluster."""

    def _sent(self, batch: Batch) -> tuple[Any, ...]:
        """Return the arguments of `Worker.train`."""
        digests = [text_hash(p.text) for p in batch.passages]
        given = {digest: self._given[digest] for digest in digests if digest in self._given}
        key = getattr(self.augmenter, "key", None)
        asked = [(p.title, p.text) for p in batch.passages]
        side = {} if key is None else entries(self._store, key, asked)
        return list(batch.passages), given, side


def parametrize_with_ray(
    model: LocalModel,
    passages: Iterable[Passage],
    address: str = "auto",
    *,
    complete: bool = False,
    progress: bool = True,
    watch: Progress | None = None,
    **options: Any,
) -> Report:
    """Train the missing adapters of passages on a Ray cluster.

    The store is written by this process alone, and holds each adapter as soon as its batch is trained: a job that was
    killed continues where it stopped. If a worker or its node dies, another worker trains its batch again. A passage
    that kills three workers by itself, or that cannot be trained, is skipped, and `Report.notes` says why. In float32
    and with the same number of threads, adapters have the same bytes as those of `Parametrizer.parametrize`.

    Args:
        model: Model, store and recipe, such as a `ParametricModel`. The nodes load it by its name or folder.
        passages: Passages with equal text are trained once; those that have an adapter cost nothing.
        address: `"auto"` for the cluster of this machine or of `RAY_ADDRESS`, `"HOST:PORT"`, or `"local"`.
        complete: Whether these are all passages of their documents, as for `Parametrizer.parametrize`.
        progress: Whether to show a progress bar, and to log the estimate at INFO.
        watch: Called with the job's progress after each batch.
        options: As for `RayParametrizer`: `workers`, `num_cpus`, `num_gpus`, `worker_model`, `documents_at_once`,
            `tokens_at_once`, `augmentations`, `start_timeout`.

    Raises:
        MissingExtraError: If Ray is not installed (extra `ray`).
        ConfigurationError: Before training, if the cluster does not answer, has no room for a worker, or a node has
            other versions or another model than this process; or the store is read-only.
        AdapterError: If workers keep dying without training anything; what was trained before is stored.
    """
    with RayParametrizer(model, address, **options) as parametrizer:
        return parametrizer.parametrize(passages, complete=complete, progress=progress, watch=watch)


def _loaded_by_workers(model: LocalModel, name: str | None, *, gpu: bool) -> dict[str, Any]:
    loaded = model.lm.loaded_with
    if loaded is None:
        raise ConfigurationError(
            f"the model {model.lm.name!r} was created in memory, so the nodes of a cluster cannot load it; save it to "
            "a folder that they see, and load it with CausalLM.from_pretrained(folder)"
        )
    found = {**loaded, "device": "auto" if gpu else "cpu"}
    return found if name is None else {**found, "name": name, "revision": None}


def _start(model: LocalModel) -> Any:
    key = start_key(model.store, model.recipe)
    return None if key is None else (key, model.store.get(key))  # type: ignore[attr-defined]
