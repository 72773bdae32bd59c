"""Generation in a vLLM server, asked as the local engine is: token ids in, token steps out.

Prompts are sent as token ids to the completions endpoint, so that the model reads exactly the tokens that its adapters
were trained on, and a stream that broke off is gone on from the very token where it broke. What the server had held
back of its text for the sake of stop strings is decoded here then, and stop strings that span the break are found here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from llamaindex_prag.serving.pending_text import held_back
from rag_backbone.engine.requests import FinishReason, Generation, Request, TokenCounts
from rag_backbone.engine.signals import TokenStep
from rag_backbone.engine.stop_strings import StopStrings
from rag_backbone.errors import ConfigurationError, ServerError
from rag_backbone.openai_errors import BrokenStreamError, failure_of, garbled, pause_before
from rag_backbone.text.unicode import clean_text

if TYPE_CHECKING:
    from llamaindex_prag.serving.served_adapters import ServedAdapters

_RELOADS = 2
"""An adapter that is lost again so often for one answer is being unloaded faster than it can be used."""


class ServedEngine:
    """The engine of a served model.

    Args:
        model: Names the base model and the adapters.
        attempts: How often an answer is asked for, each attempt going on where the one before it broke off.
        longest_wait: Seconds: a server that asks to be left alone for longer is given up.
    """

    def __init__(self, model: ServedAdapters, *, attempts: int = 4, longest_wait: float = 60.0) -> None:
        if attempts < 1 or not longest_wait > 0:
            raise ConfigurationError(f"attempts is {attempts}, longest_wait is {longest_wait}; both must be above 0")
        self.model, self.attempts, self.longest_wait = model, attempts, longest_wait

    def generate(self, request: Request) -> Generation:
        """A whole generation.

        Raises:
            ServerError: If the server refuses it, or keeps failing.
        """
        with self.stream(request) as stream:
            for _ in stream:
                pass
            return stream.generation()

    def stream(self, request: Request) -> ServedStream:
        """A generation step by step; leave it at any time."""
        return ServedStream(self, request)

    def __repr__(self) -> str:
        return f"ServedEngine({self.model.server!r})"


@dataclass
class _Written:
    """What has come so far."""

    steps: list[TokenStep] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_string: str | None = None
    held_back: str = ""
    """Text of the steps that is still to come, with the next one."""
    stops: StopStrings | None = None
    """Where the server does not see all of what was written: after a break."""


class ServedStream(Iterator[TokenStep]):
    """Token steps as the server sends them."""

    def __init__(self, engine: ServedEngine, request: Request) -> None:
        if isinstance(request.prompt, str):
            raise ConfigurationError("a served model is asked by token ids; tokenise the prompt first")
        self._engine, self._request = engine, request
        self.prompt_ids = list(request.prompt)
        self._written = _Written()
        self._source = self._generated()

    def __next__(self) -> TokenStep:
        return next(self._source)

    def close(self) -> None:
        """Leave; the server stops writing."""
        self._source.close()
        if self._written.finish_reason is None:
            self._written.finish_reason = "cancelled"

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended; None while it has not."""
        return self._written.finish_reason

    def generation(self) -> Generation:
        """Everything so far."""
        written = self._written
        text = "".join(step.text for step in written.steps) + written.held_back
        counts = TokenCounts(generated_tokens=len(written.steps))
        reason = written.finish_reason or "cancelled"
        return Generation(text, tuple(written.steps), reason, len(self.prompt_ids), counts, written.stop_string)

    def _generated(self) -> Generator[TokenStep, None, None]:
        attempt, reloads = 1, 0
        while True:
            try:
                yield from self._attempt()
            except Exception as error:
                meant = garbled(error)
                failure = failure_of(meant)
                if failure is None:
                    raise
                explained = failure.explained(self._engine.model.server.name)
                adapters = self._request.adapters
                if failure.unknown_model and adapters is not None and reloads < _RELOADS:
                    reloads += 1
                    self._engine.model.lost(adapters)  # type: ignore[arg-type]
                    continue
                attempt += 1
                pause = pause_before(attempt, failure, longest=self._engine.longest_wait)
                if not failure.passing or attempt > self._engine.attempts or pause is None:
                    raise explained from error
                self._keep_what_was_held_back()
                if len(self._written.steps) >= self._request.max_new_tokens:
                    self._written.finish_reason = "length"
                    return
                time.sleep(pause)
            else:
                return

    def _attempt(self) -> Iterator[TokenStep]:
        model = self._engine.model
        with model.name_of(self._request.adapters) as name:  # type: ignore[arg-type]
            stream = model.server.client.completions.create(**self._body(name))
            with contextlib.closing(stream):
                for event in stream:
                    for step in self._decided(self._steps(event)):
                        self._written.steps.append(replace(step, index=len(self._written.steps)))
                        yield self._written.steps[-1]
                    if self._written.stops is not None and self._written.stops.found is not None:
                        return
        if self._written.finish_reason is None:
            raise BrokenStreamError("the answer broke off without an end")

    def _keep_what_was_held_back(self) -> None:
        """Have the text of all tokens that came, for the next attempt to go on from."""
        written, stop = self._written, self._request.stop
        if not stop:
            return
        # Steps that wait for their decision in the old one were not given to anybody; they are written again.
        written.stops = StopStrings(stop)
        try:
            text = held_back(self._engine.model.lm.tokenizer, self.prompt_ids, written.steps)
        except ConfigurationError:  # the tokenizer is not here
            text = None
        if text is None:  # tokens that brought no text are written again, as the best that can be done
            while written.steps and not written.steps[-1].text:
                written.steps.pop()
        written.held_back = text or ""

    def _decided(self, steps: list[TokenStep]) -> list[TokenStep]:
        """The steps, with the text that was held back; after a break those in which no stop string can begin."""
        written = self._written
        if written.stops is None:
            return steps
        decided: list[TokenStep] = []
        for step in steps:
            decided += written.stops.push(replace(step, text=written.held_back + step.text))
            written.held_back = ""
            if written.stops.found is not None:
                written.finish_reason, written.stop_string = "stop", written.stops.found
                return decided
        return decided if written.finish_reason is None else [*decided, *written.stops.flush()]

    def _body(self, name: str) -> dict[str, Any]:
        request, done = self._request, [step.token_id for step in self._written.steps]
        sampling = request.sampling
        extra: dict[str, Any] = {"return_token_ids": True, "return_tokens_as_token_ids": True}
        if sampling.top_k:
            extra["top_k"] = sampling.top_k
        body: dict[str, Any] = {
            "model": name,
            "prompt": self.prompt_ids + done,
            "max_tokens": request.max_new_tokens - len(done),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
            "logprobs": max(1, request.signals.top_logprobs),
            "extra_body": extra,
        }
        if request.stop:
            body["stop"] = list(request.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed + len(done)  # what was drawn before a break is not drawn again
        if sampling.logit_bias:
            body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
        return body

    def _steps(self, event: Any) -> list[TokenStep]:
        """The tokens of one event; the text goes to the last of them, as a server does not say where it is cut."""
        if not event.choices:
            return []
        choice = event.choices[0]
        ids: Sequence[int] = getattr(choice, "token_ids", None) or []
        told = choice.logprobs
        if ids and (told is None or len(told.token_logprobs or []) < len(ids)):
            raise ServerError(f"{self._engine.model.server.name} sent {len(ids)} tokens without log-probabilities")
        reason, stopped = choice.finish_reason, getattr(choice, "stop_reason", None)
        if reason is not None:
            ended: FinishReason = "length" if reason == "length" else "stop" if isinstance(stopped, str) else "eos"
            self._written.finish_reason, self._written.stop_string = ended, stopped if ended == "stop" else None
            carries = len(ids) == 1 and (choice.text or self._written.held_back)
            if ended == "eos" and ids and not carries:
                ids = ids[:-1]  # the end of sequence is no token of the answer, unless it alone brings text held back
        first, text = len(self._written.steps), clean_text(choice.text, "the model's reply")
        return [
            TokenStep(
                index=first + i,
                token_id=int(token),
                text=text if i == len(ids) - 1 else "",
                logprob=float(told.token_logprobs[i]),
                top_logprobs=self._top(told, i),
            )
            for i, token in enumerate(ids)
        ]

    def _top(self, told: Any, i: int) -> tuple[tuple[int, float], ...]:
        count = self._request.signals.top_logprobs
        if not count or not told.top_logprobs:
            return ()
        # Under `return_tokens_as_token_ids` tokens are called `token_id:123`.
        found = [(int(name.rpartition(":")[2]), float(p)) for name, p in (told.top_logprobs[i] or {}).items()]
        return tuple(sorted(found, key=lambda pair: -pair[1])[:count])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
