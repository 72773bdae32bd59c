"""Counts how often each document is retrieved, and chooses its placement mode accordingly (`injection="auto"`).

The count is stored beside the document's adapters, under the hash of its text: it is removed with the document, and
starts again from 0 when the document changes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.errors import StoreError
from llamaindex_prag.placement.auto_policy import AutoDecision, AutoPolicy, Demand
from llamaindex_prag.placement.costs import Costs, measure_costs

if TYPE_CHECKING:
    from llamaindex_prag.adapter_model import LocalModel

_TABLE = "asked"


class AutoChooser:
    """Chooses the placement mode of each retrieved document, and counts its retrievals.

    Args:
        model: The model with its adapters.
        policy: The policy that chooses the mode.
        costs: Costs on this machine; None to measure them at the first use on a machine (`measure_costs`).
    """

    def __init__(self, model: LocalModel, policy: AutoPolicy | None = None, costs: Costs | None = None) -> None:
        self.model = model
        self.policy = policy or AutoPolicy()
        self.costs = costs or measure_costs(model)
        self._store: Any = model.store
        self._lock = threading.Lock()
        self._counted: dict[str, int] = {}
        """Counts that could not be stored, for example because the store is read-only."""

    def choose(self, texts: Sequence[str]) -> list[AutoDecision]:
        """Choose the mode of each document, counting one more retrieval; a blank document stays in the context."""
        chosen: dict[str, AutoDecision] = {}
        for text in dict.fromkeys(texts):
            if not text.strip():
                chosen[text] = AutoDecision("context", "no text")
                continue
            chosen[text] = self.policy.choose(self.demand(text), self.costs)
            self._count(text_hash(text))
        return [chosen[text] for text in texts]

    def demand(self, text: str) -> Demand:
        """Return what is known about a document."""
        digest, translations = text_hash(text), self.model.translations
        tokens = len(self.model.lm.tokenizer(text, add_special_tokens=False).input_ids)
        represented = translations is not None and translations.knows(digest)
        return Demand(tokens, self._asked(digest), self.model.knows(text), represented)

    def _asked(self, digest: str) -> int:
        known = self._store.get_json(_TABLE, digest)
        return max(known if isinstance(known, int) else 0, self._counted.get(digest, 0))

    def _count(self, digest: str) -> None:
        with self._lock:
            asked = self._asked(digest) + 1
            try:
                self._store.put_json(_TABLE, digest, asked)
            except StoreError:
                self._counted[digest] = asked

    def __repr__(self) -> str:
        return f"AutoChooser({self.model!r}, {self.policy!r})"
