"""What a document costs on this machine and model: read in the prompt, trained, or translated.

Measured once by a short run (`measure_costs`), kept in the project's cache folder, and used to predict:

    context      n c_read                         at each question
    trained      c_activate                       at each question, after n c_train once
    translated   c_activate + c_translate         at each question, after n c_represent once
    combined     trained + context

with n the document's tokens. Linear in n, which attention over long prompts is not quite: reading costs more than said.
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
    """Seconds, on one machine and model."""

    read: float
    """A token in the prompt."""
    activate: float
    """A document's trained adapter, read from the store; merging it into the model's slot is not counted."""
    train: float
    """A token of a document, augmentation and teacher included."""
    represent: float | None = None
    """A token of a document; None: there is no translator."""
    translate: float | None = None
    """A document whose representation is kept."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigurationError(f"{field.name} costs {value} seconds; it must be a finite number above 0")

    def once(self, way: PlacementMode, tokens: int) -> float:
        """Seconds before a document of so many tokens can be used this way; none where that is done."""
        if way == "translated":
            return tokens * self._of_translator()[0]
        return 0.0 if way == "context" else tokens * self.train

    def each(self, way: PlacementMode, tokens: int) -> float:
        """Seconds that it then costs at each question."""
        if way == "translated":
            return self.activate + self._of_translator()[1]
        weights = 0.0 if way == "context" else self.activate
        return weights + (0.0 if way == "trained" else tokens * self.read)

    def _of_translator(self) -> tuple[float, float]:
        if self.represent is None or self.translate is None:
            raise ConfigurationError("the costs were measured without a translator, so translating has none")
        return self.represent, self.translate

    def to_dict(self) -> dict[str, float | None]:
        """As plain data."""
        return asdict(self)


def measure_costs(model: LocalModel, *, again: bool = False) -> Costs:
    """Measure, or read what was measured before on this machine for this model, recipe and translator.

    Takes some seconds to a minute: one passage is read, translated, and trained for two epochs of the recipe.

    Args:
        model: The model with its recipe and translator.
        again: Whether to measure anew.
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
    """A token's share in the time to the first token of a prompt with the passage, beyond that of one without."""
    engine = model.lm.engine

    def first_token(passages: tuple[str, ...]) -> float:
        prompt = prompt_ids(model.lm.tokenizer, "When was the mill built?", passages)

        def once() -> None:
            engine.prefixes.clear()
            engine.generate(Request(prompt, 1))

        return _seconds(once)

    # The least that a token can cost keeps a tiny model's timing noise from becoming a negative price.
    return max((first_token((PROBE,)) - first_token(())) / tokens, 1e-9)


def _activating(model: LocalModel) -> float:
    """Reading a stored adapter, in the store's own encoding."""
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
    except (OSError, TypeError, ValueError, ConfigurationError):  # not there, or not ours: measured anew
        return None
