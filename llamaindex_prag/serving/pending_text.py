"""Text that a server had held back when a stream broke off.

With stop strings a server sends characters only when no stop string can begin in them any more: vLLM keeps back as many
as the longest one has, less one, until further tokens or the end come. When the stream breaks their tokens are known
here and they are not, and a request that goes on after those tokens has them in its prompt, where they are never sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_backbone.engine.signals import TokenStep
from rag_backbone.engine.stop_strings import Detokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def held_back(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], steps: Sequence[TokenStep]) -> str | None:
    """The tokens' characters that did not come with them; None if the server's text is not what they decode to."""
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    whole = "".join(detokenizer.push(step.token_id) for step in steps)
    sent = "".join(step.text for step in steps)
    return whole.removeprefix(sent) if whole.startswith(sent) else None
