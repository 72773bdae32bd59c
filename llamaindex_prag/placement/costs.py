"""Cost of a document on this machine and model when it is read in the prompt, trained, or translated.

Costs are measured once by a short run (`measure_costs`), cached in the project's cache folder, and used to predict:

    context      n c_read                         at each question
    trained      c_activate                       at each question, after n c_train once
    translated   c_activate + c_translate         at each question, after n c_represent once
    combined     trained + context

where n is the document's number of tokens. Attention makes reading long prompts more expensive than this linear model
predicts.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.jobs.pace import PROBE, PROBE_TITLE, machine_key, took, training_seconds
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.training.examples import TrainingDocument
from rag_backbone.engine.requests import Request
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.cache_folder import cache_root, write_json

if TYPE_CHECKING:
    from llamaindex_prag.adapter_model import LocalModel

PlacementMode = Literal["context", "trained", "translated", "combined"]
_REPETITIONS = 5
_VERSION = "3"
"""Part of the file's name: raise it when what is measured changes."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs in seconds on one machine and model."""

    read: float
    """Seconds per prompt token."""
    activate: float
    """Seconds to read a document's adapter from the store; merging it into a slot is not counted."""
    train: float
    """Training seconds per document token, including augmentation and teacher."""
    represent: float | None = None
    """Seconds per document token to compute a representation; None without a translator."""
    translate: float | None = None
    """Seconds to translate a stored representation; None without a translator."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigurationError(f"{field.name} costs {value} seconds; it must be a finite number above 0")

    def once(self, way: PlacementMode, tokens: int) -> float:
        """Return the one-off seconds before a document of `tokens` tokens can be used in this mode."""
        if way == "translated":
            return tokens * self._of_translator()[0]
        return 0.0 if way == "context" else tokens * self.train

    def each(self, way: PlacementMode, tokens: int) -> float:
        """Return the seconds that a prepared document of `tokens` tokens costs at each question."""
        if way == "translated":
            return self.activate + self._of_translator()[1]
        weights = 0.0 if way == "context" else self.activate
        return weights + (0.0 if way == "trained" else tokens * self.read)

    def _of_translator(self) -> tuple[float, float]:
        if self.represent is None or self.translate is None:
            raise ConfigurationError("the costs were measured without a translator, so there are none for translating")
        return self.represent, self.translate

    def to_dict(self) -> dict[str, float | None]:
        """Return the costs as plain data."""
        return asdict(self)


def measure_costs(model: LocalModel, *, again: bool = False) -> Costs:
    """Return the costs on this machine for a model, recipe and translator, from the cache if they were measured before.

    Measuring takes from a few seconds to a minute: one passage is read, translated, and trained for two epochs of the
    recipe.

    Args:
        model: The model with its recipe and translator.
        again: Whether to measure again even if there are cached costs.
    """
    path = _path(model)
    if not again and (known := _read(path)) is not None:
        return known
    tokens = len(model.lm.tokenizer(PROBE, add_special_tokens=False).input_ids)
    found: dict[str, Any] = {
        "read": _reading(model, tokens),
        "activate": _activating(model),
        "train": _training(model) / tokens,
    }
    if model.translations is not None:
        translator = model.translations.translator
        found["represent"] = _seconds(lambda: translator.represent([PROBE])) / tokens
        kept = translator.represent([PROBE])
        found["translate"] = _seconds(lambda: translator.translate(kept))
    costs = Costs(**found)
    write_json(path, costs.to_dict())
    return costs


def _reading(model: LocalModel, tokens: int) -> float:
    """Return the seconds that each passage token adds to the time to first token."""
    engine = model.lm.engine

    def first_token(passages: tuple[str, ...]) -> float:
        prompt = prompt_ids(model.lm.tokenizer, "When was the mill built?", passages)

        def once() -> None:
            engine.prefixes.clear()
            engine.generate(Request(prompt, 1))

        return _seconds(once)

    # The lower bound keeps timing noise with a tiny model from giving a negative cost.
    return max((first_token((PROBE,)) - first_token(())) / tokens, 1e-9)


def _activating(model: LocalModel) -> float:
    """Return the seconds to read a stored adapter in the store's encoding."""
    from llamaindex_prag.store.lmdb_store import LMDBStore

    encoding: Any = getattr(model.store, "encoding", "bfloat16")
    values = np.full(model.layout.size, 0.01, np.float32)
    out = np.empty_like(values)
    with (
        tempfile.TemporaryDirectory(prefix="dynprag-costs-") as folder,
        LMDBStore(Path(folder) / "store", model=model.lm.fingerprint, encoding=encoding) as store,
    ):
        store.put(model.key(PROBE), Adapter(model.layout, values, 1.0), {})
        return _seconds(lambda: store.read_into(model.key(PROBE), out))


def _training(model: LocalModel) -> float:
    lessons: list[TrainingDocument] = []
    prepared = took(lambda: lessons.extend(Parametrizer(model).lessons([Passage(PROBE, PROBE_TITLE)])))
    return prepared + training_seconds(model, lessons)


def _seconds(function: Callable[[], Any]) -> float:
    function()
    return max(statistics.median(took(function) for _ in range(_REPETITIONS)), 1e-9)


def _path(model: LocalModel) -> Path:
    parts = [_VERSION, machine_key(model), (model.translator_key or "none")[:16]]
    return cache_root() / "costs" / f"{'-'.join(parts)}.json"


def _read(path: Path) -> Costs | None:
    import json

    try:
        return Costs(**json.loads(path.read_text("utf-8")))
    except (OSError, TypeError, ValueError, ConfigurationError):  # missing or invalid: measure again
        return None
