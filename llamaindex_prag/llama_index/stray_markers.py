"""Detects references to adapters in the prompts of LLMs that cannot use them, and logs an error."""

from __future__ import annotations

import functools
import logging
from typing import Any

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers.base import BaseEventHandler
from llama_index.core.instrumentation.events.base import BaseEvent
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent, LLMCompletionStartEvent

from llamaindex_prag.llama_index.llm import ParametricLLM
from llamaindex_prag.llama_index.markers import has_markers

logger = logging.getLogger(__name__)


class StrayMarkers(BaseEventHandler):
    """Checks the prompts of all LLMs. It can only log, because LlamaIndex drops what handlers raise."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the handler."""
        return "StrayMarkers"

    def handle(self, event: BaseEvent, **_kwargs: Any) -> None:
        """Log an error if a prompt about to be sent holds references and its LLM is not a `ParametricLLM`."""
        if isinstance(event, LLMCompletionStartEvent):
            texts = [event.prompt]
        elif isinstance(event, LLMChatStartEvent):
            texts = [message.content or "" for message in event.messages]
        else:
            return
        name = event.model_dict.get("class_name", "an LLM")
        kinds: list[type[ParametricLLM]] = [ParametricLLM, *ParametricLLM.__subclasses__()]
        parametric = {kind.class_name() for kind in kinds}
        if name not in parametric and any(has_markers(text) for text in texts):
            logger.error(
                "a prompt for %s holds references to adapters instead of passages, which it cannot use: the query "
                "engine needs the llm of its ParametricNodePostprocessor, as_query_engine(llm=llm, ...)",
                name,
            )


@functools.cache
def watch() -> None:
    """Start checking all prompts of this process. Idempotent."""
    get_dispatcher().add_event_handler(StrayMarkers())
