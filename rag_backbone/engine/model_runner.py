"""One forward pass of a model: its inputs, its attention function and adapters, and its outputs.

Knows nothing of scheduling, prefixes or generations; only the worker uses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from rag_backbone.engine.adapters import AdapterBackend, PackedBackend, SequenceAdapters, key_of
from rag_backbone.engine.attention import AttentionPatch
from rag_backbone.engine.batching.packed_layout import PackedLayout, keeps_logits
from rag_backbone.engine.batching.shared_prefix import SharedPrefix, find_shared_prefixes
from rag_backbone.engine.hidden_states import last_hidden, module_of
from rag_backbone.engine.signals import NextTokens
from rag_backbone.errors import AdapterError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache


@dataclass(slots=True)
class Output:
    """The results of one forward pass at the requested positions."""

    logits: Tensor
    """(rows, kept positions, vocabulary) float32."""
    attention: list[Tensor]
    """One tensor (heads, recorded queries, keys) float32 per sequence; empty unless requested."""
    hidden: dict[str | int, Tensor]
    """The output of each requested module by name, (rows, kept positions, width)."""
    next_tokens: NextTokens | None = None
    """The next-token distribution after each sequence's last position, if requested."""


class ModelRunner:
    """Calls one model.

    Args:
        model: A decoder-only `PreTrainedModel` in evaluation mode. It is not changed.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.switch = AttentionPatch(model)
        self.backend: AdapterBackend | None = None
        self._model = model
        self._keeps_logits = keeps_logits(model)

    @property
    def mixes_adapters(self) -> bool:
        """Whether sequences with different adapters can be packed into one forward pass."""
        return self.backend is None or isinstance(self.backend, PackedBackend)

    def __call__(
        self,
        ids: PackedLayout | Sequence[list[int]],
        cache: Cache | None = None,
        *,
        adapters: Sequence[SequenceAdapters],
        keep: int | None = 1,
        queries: int = 0,
        hidden: Iterable[str | int] = (),
        following: Literal["tokens", "entropy"] | None = None,
    ) -> Output:
        """Run one forward pass in inference mode, with exclusive use of the model.

        Args:
            ids: The new tokens of one sequence, or a layout of several sequences.
            cache: Keys and values of the preceding tokens; a layout brings its own.
            adapters: The adapters of each sequence, at its position.
            keep: Return logits for this many last positions. With a layout, 1 for the last one of each sequence, or
                None for all, which are then (1, tokens, vocabulary) if it is packed.
            queries: Record attention for this many last positions; a layout records one per sequence.
            hidden: Modules whose output at the same positions to record; not available with a packed layout.
            following: Compute `Output.next_tokens`, without or with entropies.
        """
        rows = ids if isinstance(ids, PackedLayout) else None
        model, switch = self._model, self.switch
        alike = self._alike(rows, adapters)
        if isinstance(ids, PackedLayout):
            arguments = ids.arguments(model.device, logits_kept=self._keeps_logits and keep is not None)
        else:
            arguments = self._arguments(ids, cache, keep)
        with contextlib.ExitStack() as stack:
            lone = arguments["input_ids"].numel() == 1 and switch.attends_itself
            used = queries or rows is not None or lone
            on = switch.on(queries=queries, rows=rows, alike=alike)
            switched = stack.enter_context(on) if used else None
            states = {name: stack.enter_context(last_hidden(module_of(model, name), keep or 1)) for name in hidden}
            new = ids.new if isinstance(ids, PackedLayout) else ids
            stack.enter_context(self._adapted(adapters, [len(row) for row in new], rows))
            logits = model(**arguments).logits
        if keep is not None:
            logits = logits[:, -keep:] if rows is None else rows.last(logits)[:, None]
        weights = [w for tensor in (switched.weights if switched else ()) for w in tensor]
        logits = logits.float()
        # For all rows at once, and in this thread: on a CPU, another thread would slow the next forward pass down.
        next_tokens = NextTokens.of(logits[:, -1], entropy=following == "entropy") if following else None
        return Output(logits, weights, {name: found[0] for name, found in states.items()}, next_tokens)

    def _arguments(self, ids: Sequence[list[int]], cache: Cache | None, keep: int | None) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "input_ids": torch.tensor(ids, device=self._model.device),
            "use_cache": cache is not None,
        }
        if cache is not None:
            arguments["past_key_values"] = cache
        if self._keeps_logits and keep is not None:
            arguments["logits_to_keep"] = keep
        return arguments

    def _alike(self, rows: PackedLayout | None, adapters: Sequence[SequenceAdapters]) -> list[SharedPrefix]:
        """Return the groups of sequences that share a prefix in a decode batch."""
        # Only on a CPU: a GPU reads memory so fast that the extra products cost more than they save.
        if rows is None or rows.packed or len(rows.new) < 2 or self._model.device.type != "cpu":
            return []
        self.switch.try_out()
        if not self.switch.supported:
            return []
        return find_shared_prefixes([one.key for one in adapters], [sequence.ids for sequence in rows.sequences])

    def _adapted(
        self, adapters: Sequence[SequenceAdapters], lengths: Sequence[int], rows: PackedLayout | None
    ) -> AbstractContextManager[None]:
        # Activate base-model rows as well: the backend may still hold adapters of an earlier forward pass.
        if self.backend is None:
            return contextlib.nullcontext()
        split = [one.parts(n) for one, n in zip(adapters, lengths, strict=True)]
        parts = [part for of_sequence in split for part in of_sequence]
        if len(parts) == len(split) and (rows is None or not rows.packed):
            return self.backend.activate([one for one, _ in parts])
        if len({key_of(one) for one, _ in parts}) == 1:
            return self.backend.activate([parts[0][0]])
        if not isinstance(self.backend, PackedBackend):
            raise AdapterError(
                f"{type(self.backend).__name__} applies adapters to whole sequences only, so they cannot act from the "
                "answer on; implement `activate_packed`, or let them act from the prompt on"
            )
        return self.backend.activate_packed([one for one, _ in parts], [n for _, n in parts])
