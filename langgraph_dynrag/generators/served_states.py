"""Sampled continuations of an answer, and hidden states of a draft, with a chat model in a vLLM server.

The chat server samples, and says which tokens it read and wrote (`return_token_ids`); a `HiddenStateServer` reads them
again, from its prefix cache as far as they are there, and gives the states. What is sampled and read is the same as in
process (`local_samples.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.messages import AIMessage, convert_to_openai_messages

from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.generators.endpoint import CONTINUE
from langgraph_dynrag.generators.local_samples import sample_end
from rag_backbone.errors import SignalUnavailableError

if TYPE_CHECKING:
    from langchain_openai.chat_models.base import BaseChatOpenAI

    from langgraph_dynrag.drafts.draft import Draft, Floats
    from langgraph_dynrag.drafts.tasks import DraftTask
    from langgraph_dynrag.generators.endpoint import Endpoint
    from langgraph_dynrag.generators.hidden_state_server import HiddenStateServer

_AT_ONCE = 16
"""Concurrent requests for states; the server batches them."""


@dataclass
class _Sample:
    """One sample while it is written."""

    text: str = ""
    pieces: list[tuple[str, int]] = field(default_factory=list)
    """Characters and number of tokens of each part of the stream."""
    ids: list[int] = field(default_factory=list)
    characters: int | None = None
    """How many characters belong to it, once that is known."""
    finished: str | None = None

    @property
    def ended(self) -> bool:
        return self.characters is not None or self.finished is not None

    def push(self, piece: str, ids: Sequence[int], finished: str | None) -> None:
        """Add a part of the stream."""
        self.text += piece
        self.ids += ids
        self.pieces.append((piece, len(ids)))
        self.finished = finished

    def kept(self, eos: int) -> tuple[list[int], str]:
        """Return the tokens and the text before the end-of-sequence token, as `EOSStatesRequest` defines them."""
        if self.finished == "stop":
            return self.ids[:-1] if self.ids[-1:] == [eos] else self.ids, self.text
        count, text = 0, ""
        for piece, tokens in self.pieces:
            at_end = self.characters is not None and len(text) >= self.characters
            if at_end or count + tokens > len(self.ids) - 1:  # the end-of-sequence token replaces the last one
                break
            count, text = count + tokens, text + piece
        return self.ids[:count], text


class ServedStates:
    """The states of one chat model in a server.

    Args:
        chat: The chat model.
        endpoint: Its server.
        server: The server that gives the states.
    """

    def __init__(self, chat: BaseChatOpenAI, endpoint: Endpoint, server: HiddenStateServer) -> None:
        self._chat, self._endpoint, self._server = chat, endpoint, server

    def sample_ends(self, task: DraftTask, spec: SampleSpec, seed: int) -> SampledEnds:
        """Sample continuations, each up to the end of its sentence or short answer, and read the state at their ends.

        Raises:
            SignalUnavailableError: If the states are of a part of the layer, adapters are active, or the chat server
                does not continue answers or return token ids.
        """
        if spec.state != "layer":
            raise SignalUnavailableError(f"state is {spec.state!r}, but {self._server.name} gives only 'layer'")
        self._refuse_adapters(task)
        started = time.monotonic()
        layer, eos = spec.layer_of(self._server.depth), self._server.eos
        prompt, samples = self._sampled(task, spec, seed)
        kept = [sample.kept(eos) for sample in samples]

        def state(sample: tuple[list[int], str]) -> Floats:
            return self._server.states([*prompt, *sample[0], eos], 1, [layer])[0, 0]

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            states = np.stack(list(pool.map(state, kept)))
        tokens, seconds = sum(len(s.ids) for s in samples), time.monotonic() - started
        cost = {"sequences": spec.samples, "tokens": tokens, "seconds": seconds}
        return SampledEnds(states, tuple(text for _, text in kept), cost)

    def hidden_states(self, task: DraftTask, unit: Draft, depths: Sequence[float]) -> Floats:
        """Return the states of a draft's tokens, as `Generator.hidden_states` defines them.

        Raises:
            SignalUnavailableError: As by `sample_ends`.
        """
        self._refuse_adapters(task)
        layers = [max(round(depth * self._server.depth), 1) - 1 for depth in depths]
        before, whole = self._ids(task, task.accepted), self._ids(task, task.accepted + unit.text)
        # The draft's first token may include the end of the accepted text.
        same = next((i for i, pair in enumerate(zip(before, whole, strict=False)) if pair[0] != pair[1]), len(before))
        predict = max(min(same, len(whole) - 1), 1) - 1
        states = self._server.states(whole[:-1], len(whole) - 1 - predict, layers)
        return states.mean(1)

    def _sampled(self, task: DraftTask, spec: SampleSpec, seed: int) -> tuple[list[int], list[_Sample]]:
        """Return the prompt's tokens and the samples."""
        samples = [_Sample() for _ in range(spec.samples)]
        prompt: list[int] | None = None
        stream = self._request(
            task,
            task.accepted,
            {"top_k": spec.top_k or -1},
            n=spec.samples,
            temperature=spec.temperature,
            top_p=spec.top_p,
            seed=seed % 2**31,
            max_tokens=spec.max_tokens,
            stream=True,
        )
        with contextlib.closing(stream):  # the server stops when the last sample has ended
            for chunk in stream:
                prompt = getattr(chunk, "prompt_token_ids", None) or prompt
                for choice in chunk.choices:
                    sample = samples[choice.index]
                    if not sample.ended:
                        ids = getattr(choice, "token_ids", None) or []
                        sample.push(choice.delta.content or "", ids, choice.finish_reason)
                        sample.characters = sample_end(task, spec, sample.text)
                if all(sample.ended for sample in samples):
                    break
        if prompt is None or not all(s.ids for s in samples):
            raise self._without_ids()
        return prompt, samples

    def _ids(self, task: DraftTask, answer: str) -> list[int]:
        """Return the tokens of the conversation with an open answer."""
        reply = self._request(task, answer, {}, max_tokens=1)
        if (ids := getattr(reply, "prompt_token_ids", None)) is None:
            raise self._without_ids()
        return list(ids)

    def _request(self, task: DraftTask, answer: str, extra: dict[str, Any], **options: Any) -> Any:
        messages, body = list(task.messages), {**self._endpoint.extra_body, **extra, "return_token_ids": True}
        if answer.strip():
            if self._endpoint.way != "flags":
                raise SignalUnavailableError(
                    f"{self._endpoint.name} does not continue answers (continue_final_message)"
                )
            messages, body = [*messages, AIMessage(answer.rstrip())], {**body, **CONTINUE}
        return self._chat.root_client.chat.completions.create(
            model=self._endpoint.model,
            messages=convert_to_openai_messages(messages),
            extra_body=body,
            **options,
        )

    def _refuse_adapters(self, task: DraftTask) -> None:
        if task.adapters is not None:
            raise SignalUnavailableError(f"{self._server.name} reads without the adapters that are active in the draft")

    def _without_ids(self) -> SignalUnavailableError:
        return SignalUnavailableError(
            f"{self._endpoint.name} returns no token ids (return_token_ids), which hidden states need; vLLM does"
        )
