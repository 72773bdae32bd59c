"""Generates in a vLLM server with the interface of the local engine: token IDs in, token steps out.

Prompts are sent as token IDs to the completions endpoint, so the model reads exactly the tokens that its adapters were
trained on, and a broken stream resumes at the exact token where it broke. Text that the server had held back to match
stop strings is then decoded here, and stop strings that span the break are found here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from rag_backbone.engine.requests import FinishReason, Generation, Request, TokenCounts
from rag_backbone.engine.signals import TokenStep
from rag_backbone.engine.stop_strings import Detokenizer, StopStrings
from rag_backbone.errors import ConfigurationError, ServerError
from rag_backbone.openai_errors import BrokenStreamError, failure_of, garbled, pause_before
from rag_backbone.text.unicode import clean_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llamaindex_prag.serving.in_server import ModelInServer

_RELOADS = 2
"""Reloads of an adapter per answer; if it is lost more often, it is being unloaded faster than it can be used."""


class ServedEngine:
    """The engine of a served model.

    Args:
        model: The served model, which names the base model and the adapters.
    """

    attempts = 4
    """Maximum number of attempts per answer; each resumes where the previous one broke off."""
    longest_wait = 60.0
    """Longest pause in seconds that a server may ask for before the request fails."""

    def __init__(self, model: ModelInServer) -> None:
        self.model = model

    def generate(self, request: Request) -> Generation:
        """Generate a whole answer.

        Raises:
            ServerError: If the server rejects the request, or keeps failing.
        """
        with self.stream(request) as stream:
            for _ in stream:
                pass
            return stream.generation()

    def stream(self, request: Request) -> ServedStream:
        """Generate step by step; the stream can be closed at any time."""
        return ServedStream(self, request)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model.server!r})"


@dataclass
class _Written:
    """What has been generated so far."""

    steps: list[TokenStep] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_string: str | None = None
    held_back: str = ""
    """Text of earlier steps that is still to be emitted, with the next step."""
    stops: StopStrings | None = None
    """Finds stop strings after a break, when the server no longer sees the whole answer; None before."""


class ServedStream(Iterator[TokenStep]):
    """Iterates over the token steps that the server sends."""

    def __init__(self, engine: ServedEngine, request: Request) -> None:
        if isinstance(request.prompt, str):
            raise ConfigurationError("a served model takes token IDs; tokenize the prompt first")
        self._engine, self._request = engine, request
        self.prompt_ids = list(request.prompt)
        self._written = _Written()
        self._source = self._generated()

    def __next__(self) -> TokenStep:
        return next(self._source)

    def close(self) -> None:
        """Close the stream; the server stops generating."""
        self._source.close()
        if self._written.finish_reason is None:
            self._written.finish_reason = "cancelled"

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the generation ended; None while it has not."""
        return self._written.finish_reason

    def generation(self) -> Generation:
        """Return everything generated so far; the finish reason is `"cancelled"` if it has not ended."""
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
        written = self._written
        with self._events() as events:
            for event in events:
                for step in self._decided(self._steps(event)):
                    written.steps.append(replace(step, index=len(written.steps)))
                    yield written.steps[-1]
                if written.stops is not None and written.finish_reason is not None:
                    return
        if written.finish_reason is None:
            raise BrokenStreamError("the answer broke off without an end")

    @contextlib.contextmanager
    def _events(self) -> Iterator[Iterable[Any]]:
        """Request the rest of the answer, and yield what the server sends."""
        model: Any = self._engine.model
        with (
            model.name_of(self._request.adapters) as name,
            contextlib.closing(model.server.client.completions.create(**self._body(name))) as events,
        ):
            yield events

    def _keep_what_was_held_back(self) -> None:
        """Recover the text of all tokens received, so that the next attempt can resume after them."""
        written, stop = self._written, self._request.stop
        if not stop:
            return
        # Steps still undecided in the old instance were never yielded; they are generated again.
        written.stops = StopStrings(stop)
        try:
            text = held_back(self._engine.model.lm.tokenizer, self.prompt_ids, written.steps)
        except ConfigurationError:  # the tokenizer is not available
            text = None
        if text is None:  # the best alternative is to generate the tokens without text again
            while written.steps and not written.steps[-1].text:
                written.steps.pop()
        written.held_back = text or ""

    def _decided(self, steps: list[TokenStep]) -> list[TokenStep]:
        """Add held-back text to the steps; after a break, return only steps in which no stop string can begin."""
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
            body["seed"] = sampling.seed + len(done)  # do not repeat the random draws from before a break
        if sampling.logit_bias:
            body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
        return body

    def _steps(self, event: Any) -> list[TokenStep]:
        """Build the token steps of one event; the last gets all the text, as servers do not split it by token."""
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
                ids = ids[:-1]  # the end of sequence is not part of the answer, unless it alone carries held-back text
        text = clean_text(choice.text, "the model's reply")
        return [
            TokenStep(
                index=i,
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
        # With `return_tokens_as_token_ids`, tokens are named `token_id:123`.
        found = [(int(name.rpartition(":")[2]), float(p)) for name, p in (told.top_logprobs[i] or {}).items()]
        return tuple(sorted(found, key=lambda pair: -pair[1])[:count])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def held_back(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], steps: Sequence[TokenStep]) -> str | None:
    """Return the tokens' text that was not sent with them; None if the text sent is not what the tokens decode to.

    With stop strings, a server sends characters only once no stop string can begin in them: vLLM holds back as many as
    the longest stop string has, minus one, until further tokens or the end arrive. When the stream breaks, the client
    has the tokens but not these characters, and a request that resumes has the tokens in its prompt, so the server
    never sends their text.
    """
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    whole = "".join(detokenizer.push(step.token_id) for step in steps)
    sent = "".join(step.text for step in steps)
    return whole.removeprefix(sent) if whole.startswith(sent) else None
