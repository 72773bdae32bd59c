"""Generates in a llama.cpp server with the interface of the local engine: token IDs in, token steps out.

llama.cpp sends no event for a token in the middle of a character, and never its log-probability. The event that
completes the character has the text and a count of all tokens, so the tokens that are missing are those of the text;
their log-probabilities are NaN. Stop strings are found here, so the server never holds text back.

Every request says which adapters act, also if none does: without that field, llama.cpp would reuse a cached prompt that
was read under another request's adapters.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llamaindex_prag.serving.served_engine import ServedEngine, ServedStream
from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import TokenStep
from rag_backbone.engine.stop_strings import StopStrings
from rag_backbone.errors import ServerError
from rag_backbone.text.unicode import clean_text

_REPLACEMENT = "\ufffd"


class LlamaCppEngine(ServedEngine):
    """The engine of a model in a llama.cpp server."""

    def stream(self, request: Request) -> LlamaCppStream:
        """Generate step by step; the stream can be closed at any time."""
        return LlamaCppStream(self, request)


class LlamaCppStream(ServedStream):
    """Iterates over the token steps of a llama.cpp server."""

    _engine: LlamaCppEngine

    def __init__(self, engine: LlamaCppEngine, request: Request) -> None:
        super().__init__(engine, request)
        self._keep_what_was_held_back()

    @contextlib.contextmanager
    def _events(self) -> Iterator[Iterable[Any]]:
        model: Any = self._engine.model
        done = [step.token_id for step in self._written.steps]
        with (
            model.acting(self._request.adapters, self.prompt_ids, done) as lora,
            contextlib.closing(model.server.stream(self._body_with(lora, done))) as events,
        ):
            yield events

    def _keep_what_was_held_back(self) -> None:
        self._received, self._incomplete = 0, ""
        self._written.stops = StopStrings(self._request.stop)

    def _body_with(self, lora: list[dict[str, Any]], done: list[int]) -> dict[str, Any]:
        request = self._request
        sampling = request.sampling
        body: dict[str, Any] = {
            "prompt": self.prompt_ids + done,
            "n_predict": request.max_new_tokens - len(done),
            "temperature": sampling.temperature,
            "top_k": sampling.top_k or 0,
            "top_p": sampling.top_p,
            "min_p": 0.0,
            "repeat_penalty": 1.0,
            "n_probs": max(1, request.signals.top_logprobs),
            "return_tokens": True,
            "cache_prompt": True,
        }
        if lora:
            body["lora"] = lora
        if sampling.seed is not None:
            body["seed"] = sampling.seed + len(done)  # do not repeat the random draws from before a break
        if sampling.logit_bias:
            body["logit_bias"] = [[token, bias] for token, bias in sampling.logit_bias.items()]
        return body

    def _steps(self, event: Any) -> list[TokenStep]:
        """Build the token steps of one event, which has one token, or the last of those of a character."""
        if not isinstance(event, dict) or "content" not in event:
            raise ServerError(f"{self._engine.model.server.name} sent an event without text: {str(event)[:200]}")
        sent = clean_text(event["content"], "the model's reply")
        text = self._incomplete + sent
        # A character that the end cuts off is sent as replacement characters; before the end, they are invalid bytes.
        self._incomplete = text[len(text.rstrip(_REPLACEMENT)) :]
        text = text.removesuffix(self._incomplete)
        ids = [int(token) for token in event.get("tokens") or []]
        missing = int(event.get("tokens_predicted", 0)) - self._received - len(ids) if ids else 0
        self._received += missing + len(ids)
        if event.get("stop"):
            self._written.finish_reason = "length" if event.get("stop_type") == "limit" else "eos"
        if missing > 0:
            ids = self._spelled(sent, ids)
        if not ids:
            self._written.held_back += text
        told = (event.get("completion_probabilities") or [{}])[-1]
        return [
            TokenStep(
                index=i,
                token_id=token,
                text=text if i == len(ids) - 1 else "",
                logprob=float(told.get("logprob", math.nan)) if i == len(ids) - 1 else math.nan,
                top_logprobs=self._likeliest(told) if i == len(ids) - 1 else (),
            )
            for i, token in enumerate(ids)
        ]

    def _spelled(self, text: str, ids: Sequence[int]) -> list[int]:
        """Return the tokens of a character, of which the last was sent; that one only if the bytes are invalid."""
        found = None if _REPLACEMENT in text else self._engine.model.server.tokenised(text)
        return found or list(ids)

    def _likeliest(self, told: dict[str, Any]) -> tuple[tuple[int, float], ...]:
        count = self._request.signals.top_logprobs
        found = [(int(entry["id"]), float(entry["logprob"])) for entry in told.get("top_logprobs") or []]
        return tuple(sorted(found, key=lambda pair: -pair[1])[:count])
