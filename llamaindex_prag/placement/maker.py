"""Makes the adapters that a question waits for, and remembers which texts cannot be learnt.

If one passage fails, the others in its group still get their adapters; if the store fails, the work ends. A passage
that fails for a permanent reason (`ConfigurationError`, or training that produced no adapter) is not tried again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from llamaindex_prag.adapter_model import AdapterModel
from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.errors import StoreError
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.placement.candidate import Candidate, Making
from llamaindex_prag.progress import JobStatus, Progress, WaitedFor
from rag_backbone.errors import AdapterError, ConfigurationError

_REMEMBERED = 4096
"""Maximum number of remembered texts that could not be learnt."""
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class MadeAdapters:
    """Report of the adapters made before passages could be placed."""

    trained: int = 0
    """Number of trained adapters."""
    translated: int = 0
    """Number of documents whose representation was computed."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reason why a candidate has no adapter, by candidate ID."""
    waited_for: list[str] = field(default_factory=list)
    """Names of the candidates that were trained."""
    estimated: float = 0.0
    """Estimated training time in seconds."""
    seconds: float = 0.0
    """Total time in seconds."""
    store_failed: bool = False
    """Whether the store can keep nothing more, for example because it is full."""


class Maker:
    """Trains and translates missing adapters of one model.

    Args:
        model: The model with its adapters.
        waiting: Logger that reports, at WARNING, that a question waits for training.
        progress: Whether to show a progress bar on stderr during training.
        watch: Callback that is called a few times per second during training.
    """

    def __init__(self, model: AdapterModel, *, waiting: logging.Logger, progress: bool, watch: Progress | None) -> None:
        self._model = model
        self._waiting, self._progress = waiting, progress
        self._watch = () if watch is None else (watch,)
        self._parametrizer: Parametrizer | None = None
        self._given_up: dict[tuple[Making, str], str] = {}
        """Reasons by making and text hash, because another attempt would take long. IDs would not do as keys: a
        document can change."""
        self._giving_up = threading.Lock()

    def why_not(self, candidate: Candidate, making: Making) -> str | None:
        """Return why an earlier attempt to make the adapter failed; None if none failed permanently."""
        return self._given_up.get((making, text_hash(candidate.text)))

    def make(self, making: Making, candidates: Sequence[Candidate], made: MadeAdapters) -> None:
        """Make adapters, and record the outcome in `made`."""
        work: Callable[[Sequence[Candidate], MadeAdapters], None] = (
            self._train if making == "train" else self._translate
        )
        try:
            work(candidates, made)
        except StoreError as error:
            made.store_failed = True
            lost = [c for c in candidates if self._model.find(c.text) is None]
            made.failed |= {c.id: str(error) for c in lost}
            logger.warning("%d passages have no adapter: %s", len(lost), error)
        except (AdapterError, ConfigurationError) as error:
            if len(candidates) > 1:
                for candidate in candidates:
                    self.make(making, [candidate], made)
                return
            (candidate,) = candidates
            logger.warning("a passage of %s has no adapter: %s", candidate.name, error)
            made.failed[candidate.id] = str(error)
            if isinstance(error, ConfigurationError):
                self._give_up(making, candidate, str(error))

    def _translate(self, candidates: Sequence[Candidate], made: MadeAdapters) -> None:
        translations = self._model.translations
        if translations is None:
            raise ConfigurationError("costs are given for translating, but the model has no translator")
        made.translated += translations.keep([c.passage for c in candidates])

    def _train(self, candidates: Sequence[Candidate], made: MadeAdapters) -> None:
        if self._parametrizer is None:
            self._parametrizer = Parametrizer(self._model.local)
        estimates: list[float] = []

        def note(advance: JobStatus) -> None:
            estimates[:] = [advance.estimated]

        report = self._parametrizer.parametrize(
            [c.passage for c in candidates],
            progress=self._progress,
            watch=WaitedFor(self._waiting, note, *self._watch),
        )
        made.trained += report.trained
        if estimates:
            made.waited_for += [c.name for c in candidates]
            made.estimated += estimates[0]
        for candidate in candidates:
            if not self._model.knows(candidate.text):
                notes = report.notes.get(text_hash(candidate.text), ("no adapter was made",))
                self._give_up("train", candidate, "; ".join(notes))

    def _give_up(self, making: Making, candidate: Candidate, why: str) -> None:
        with self._giving_up:
            while len(self._given_up) >= _REMEMBERED:  # forget the oldest, which may then be tried again
                del self._given_up[next(iter(self._given_up))]
            self._given_up[making, text_hash(candidate.text)] = why
