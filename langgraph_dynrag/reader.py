"""A reader: the final answer is written again from the passages collected, without the reasoning that found them.

IRCoT (Trivedi et al. 2023, section 3.2): the interleaved reasoning only serves retrieval. A reader, the same model,
then sees the question and all collected paragraphs, and either reasons from the start (`cot`, which the paper uses for
GPT-3) or writes the short answer alone (`direct`, which it uses for Flan-T5). This module holds the settings; the node
`conclude` writes the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.method import Method
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_fields


@dataclass(frozen=True, slots=True)
class Reader:
    """Writes the final answer from the collected passages alone: `final_answer=Reader()`.

    The text written before is the search's reasoning: it stays in the trace, but the answer neither sees nor contains
    it. The answer may be as long as `Budgets.tokens` allows again; if no seconds are left, it is written as with
    `"direct"`. An answer that lacks its short answer is completed, whereas the paper takes the whole text for it.

    Args:
        style: `"cot"`: reason from the start; `"direct"`: write the short answer alone. A prompt without an answer
            phrase has no short answer, and is always answered as a whole.

    Raises:
        ConfigurationError: If the style is unknown.
    """

    style: Literal["cot", "direct"] = "cot"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs(self) -> frozenset[Signal]:
        """No signals."""
        return frozenset()

    def check_with(self, settings: Method) -> None:
        """Refuse methods that leave nothing to read.

        Raises:
            ConfigurationError: If the settings insert results into the text, drop evidence after each sentence, or
                select continuations.
        """
        problem = None
        if settings.tag_format is not None:
            problem = f"the results of {settings.trigger} stand in the text"
        elif settings.evidence_life == "sentence":
            problem = 'with evidence_life="sentence" they leave the prompt after each sentence'
        elif settings.selection is not None:
            problem = "with selection=... each continuation has its own"
        if problem is not None:
            raise ConfigurationError(
                f"final_answer={self!r} reads the passages that were collected in the prompt, but {problem}. Use "
                "final_answer=None."
            )
