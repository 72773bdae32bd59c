"""Recovers the text that a server had held back when a stream broke off.

With stop strings, a server sends characters only once no stop string can begin in them: vLLM holds back as many as the
longest stop string has, minus one, until further tokens or the end arrive. When the stream breaks, the client has the
tokens but not these characters. A request that resumes after those tokens has them in its prompt, so the server never
sends their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_backbone.engine.signals import TokenStep
from rag_backbone.engine.stop_strings import Detokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def held_back(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], steps: Sequence[TokenStep]) -> str | None:
    """Return the tokens' text that was not sent with them; None if the text sent is not what the tokens decode to."""
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    whole = "".join(detokenizer.push(step.token_id) for step in steps)
    sent = "".join(step.text for step in steps)
    return whole.removeprefix(sent) if whole.startswith(sent) else None
