"""A generation as an iterator of token steps that can be abandoned at any time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rag_backbone.engine.adapters import AdapterSet
from rag_backbone.engine.requests import FinishReason, Generation
from rag_backbone.engine.sequence import SequenceState
from rag_backbone.engine.signals import TokenStep

if TYPE_CHECKING:
    from torch import Tensor


class SteppingEngine(Protocol):
    """What a stream needs of the engine that computes it."""

    def advance(self, row: SequenceState) -> None:
        """Compute the sequence's next token."""

    def release(self, row: SequenceState) -> None:
        """Take back a sequence that generates no more tokens."""

    def attention_row(
        self, ids: Sequence[int], *, adapters: AdapterSet | None = None, answer_from: int | None = None
    ) -> Tensor:
        """Return the last-layer attention of the last of `ids` over all of them: (heads, tokens) float32."""


class TokenStream(Iterator[TokenStep]):
    """Token steps as they are generated.

    Use it as a context manager, or call `close`, so that the computed keys and values are cached for the next prompt.
    Leaving early costs nothing and blocks no other request.
    """

    def __init__(self, engine: SteppingEngine, row: SequenceState) -> None:
        self._engine = engine
        self._row = row
        self._given = 0
        self._closed = False

    def __next__(self) -> TokenStep:
        row = self._row
        while self._given >= len(row.steps):
            if row.finish_reason is not None:
                self.close()
                raise StopIteration
            self._engine.advance(row)
        self._given += 1
        return row.steps[self._given - 1]

    def close(self) -> None:
        """Stop generating. The steps returned so far remain available."""
        if not self._closed:
            self._closed = True
            self._row.cancel()
            self._engine.release(self._row)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the generation ended; None while it has not."""
        return self._row.finish_reason

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt's token ids."""
        return self._row.prompt_ids

    def generation(self) -> Generation:
        """Return everything generated so far, whether or not it was iterated over."""
        return self._row.generation()

    def closing_attention(self) -> Tensor:
        """Return the attention row of the last step's own token, (heads, keys) float32, and end the stream.

        A step carries the row of the query that predicted it, so this is the one row that no step carries. It is
        available if generation went one token further (an end of sequence). Otherwise it costs a forward pass over one
        token, which a continuation of the text then saves.

        Raises:
            ValueError: If no token was generated.
        """
        row = self._row
        if not row.steps:
            raise ValueError("no token was generated, so there is no last token")
        self.close()
        if row.closing_attention is None:
            ids = row.prompt_ids + [step.token_id for step in row.steps]
            answer = row.request.answer_from or len(row.prompt_ids)
            row.closing_attention = self._engine.attention_row(ids, adapters=row.request.adapters, answer_from=answer)
        return row.closing_attention

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
