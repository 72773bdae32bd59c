"""Sample continuations of an answer from an in-process model: a `SampleSpec` as the engine's `EOSStatesRequest`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from langchain_core.messages import BaseMessage

from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.short_answer import is_complete, through_answer
from rag_backbone.text.units import first_sentence_end

if TYPE_CHECKING:
    from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
    from langgraph_dynrag.drafts.tasks import DraftTask


def sample_ends(
    chat: LocalChatModel, messages: Sequence[BaseMessage], task: DraftTask, spec: SampleSpec, seed: int
) -> SampledEnds:
    """Sample continuations of a conversation's open answer, each up to the end of its sentence or of the short answer.

    Args:
        chat: The model.
        messages: The conversation; the last one is continued.
        task: Its stop strings also end a sample, its answer phrase locates the short answer, and its adapters are
            active.
        spec: Number of samples and sampling parameters.
        seed: Random seed; the same seed gives the same samples.
    """
    from rag_backbone.engine.eos_states import EOSStatesRequest
    from rag_backbone.engine.hidden_states import hidden_state_name
    from rag_backbone.engine.sampling import Sampling

    started = time.monotonic()
    model = chat.lm.model
    prompt = chat.encode(messages)
    request = EOSStatesRequest(
        prompt.ids,
        hidden_state_name(model, spec.layer_of(len(model.get_decoder().layers)), spec.state),
        samples=spec.samples,
        max_new_tokens=spec.max_tokens,
        sampling=Sampling(spec.temperature, spec.top_p, spec.top_k, seed),
        ends_at=partial(sample_end, task, spec),
        adapters=task.adapters,
        answer_from=prompt.answer_from,
    )
    found = chat.lm.engine.end_states(request)
    cost = {
        "sequences": spec.samples,
        "tokens": found.counts.generated_tokens,
        "forward_tokens": found.counts.forward_tokens,
        "cached_tokens": found.counts.cached_tokens,
        "seconds": time.monotonic() - started,
    }
    return SampledEnds(found.states.numpy(force=True), found.texts, cost)


def sample_end(task: DraftTask, spec: SampleSpec, text: str) -> int | None:
    """Return where to cut off a sample: before a stop string, or after its sentence or short answer."""
    if cuts := [at for s in task.stop if (at := text.find(s)) >= 0]:
        return min(cuts)
    if spec.until == "answer":
        phrase, end = task.answer_phrase, task.answer_end
        if phrase is None or not is_complete(text, phrase, end):
            return None
        return len(through_answer(text, phrase, end))
    sentence = first_sentence_end(text)
    return None if sentence is None else len(text[:sentence].rstrip())
