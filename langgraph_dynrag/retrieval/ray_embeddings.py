"""Embeddings that the nodes of a Ray cluster compute, for an index that takes one machine too long.

Batches of texts are Ray tasks: whichever node has room takes the next one, and Ray runs those of a node that died again
elsewhere. Vectors depend on nothing but their text and batch, so that nothing else has to be kept.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

from langchain_core.embeddings import Embeddings

from rag_backbone.checks import clause
from rag_backbone.errors import ConfigurationError, ServerError
from rag_backbone.ray_cluster import check_resources, connected, require_ray

_LOADED: dict[str, Embeddings] = {}
"""In a worker process: the embeddings that it has loaded, by an id of the driver's object."""
_RETRIES = 5
"""How often a batch whose worker or node died is computed again."""


class RayEmbeddings(Embeddings):
    """Compute the vectors of documents on a Ray cluster, and those of queries in this process.

    Vectors are those of `embeddings`, so an index can be filled with `RayEmbeddings` and searched without. It is a
    context manager, which is connected to the cluster until its block ends. Without a block, the first call connects,
    and the connection lasts until the process ends.

    Args:
        embeddings: LangChain embeddings that can be pickled. The nodes load their model, so it has to be found there.
        address: `"auto"` for the cluster of this machine or of `RAY_ADDRESS`, `"HOST:PORT"`, or `"local"` to start a
            cluster of this machine alone.
        num_cpus: CPUs of a task, which is also its number of threads.
        num_gpus: GPUs of a task; a fraction shares one.
        batch_size: Texts of a task.

    Raises:
        MissingExtraError: If Ray is not installed.
        ConfigurationError: If a number is not possible. When it connects: if the cluster does not answer, or no node
            has the CPUs and GPUs.

    Example:
        >>> with RayEmbeddings(MiniLMEmbeddings(), "10.0.0.5:6379", num_cpus=2) as embeddings:  # doctest: +SKIP
        ...     LocalIndex("notes.index", embeddings=embeddings).ingest("notes/")
    """

    def __init__(
        self,
        embeddings: Embeddings,
        address: str = "auto",
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        batch_size: int = 32,
    ) -> None:
        require_ray()
        if num_cpus <= 0 or num_gpus < 0 or batch_size < 1:
            raise ConfigurationError(
                f"num_cpus is {num_cpus:g}, num_gpus {num_gpus:g} and batch_size {batch_size}; more than 0 CPUs, at "
                "least 0 GPUs and at least 1 text are needed"
            )
        self.underlying_embeddings = embeddings
        self._address, self._batch = address, batch_size
        self._resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self._open = ExitStack()
        self._task: Any = None
        self._sent: Any = None
        self._key = ""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._task = self._sent = None
        self._open.close()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector per text, in order.

        Raises:
            ServerError: If a batch cannot be computed, or its workers keep dying.
        """
        if not texts:
            return []
        import ray
        from ray.exceptions import RayError

        self._connect()
        batches = [texts[start : start + self._batch] for start in range(0, len(texts), self._batch)]
        pending = [self._task.remote(self._key, self._sent, batch) for batch in batches]
        try:
            return [vector for vectors in ray.get(pending) for vector in vectors]
        except RayError as error:
            for reference in pending:
                ray.cancel(reference)
            cause = getattr(error, "cause", None) or error
            raise ServerError(f"the Ray cluster could not embed {len(texts)} texts: {clause(cause)}") from error

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return self.underlying_embeddings.embed_query(text)

    def _connect(self) -> None:
        import ray

        with self._lock, ExitStack() as opened:
            if self._task is not None:
                return
            opened.enter_context(connected(self._address))
            check_resources(**self._resources)
            self._sent = ray.put(self.underlying_embeddings)
            self._key = self._sent.hex()
            self._task = ray.remote(_embedded).options(
                **self._resources, max_retries=_RETRIES, scheduling_strategy="SPREAD"
            )
            self._open = opened.pop_all()

    def __reduce__(self) -> tuple[Any, ...]:
        options: dict[str, Any] = {"batch_size": self._batch, **self._resources}
        return partial(type(self), address=self._address, **options), (self.underlying_embeddings,)

    def __repr__(self) -> str:
        return f"RayEmbeddings({self.underlying_embeddings!r}, {self._address!r})"


def _embedded(key: str, embeddings: Embeddings, texts: list[str]) -> list[list[float]]:
    """Compute a batch in a worker, which keeps the model for the next one."""
    return _LOADED.setdefault(key, embeddings).embed_documents(texts)
