"""The prompt: instructions and worked examples first, then the passages, then the question.

The text before the passages is the same for every question, and the text before the answer only changes with the
passages. This order lets a prefix cache keep as much as possible.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langgraph_dynrag.evidence import Passage, render
from rag_backbone.checks import check_type, known_arguments
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import check_fields


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A worked example: a question and a reasoned answer that ends with the answer phrase.

    The phrase is `AnswerPrompt.answer_phrase`, "So the answer is" unless it is replaced.
    """

    question: str
    answer: str

    def __post_init__(self) -> None:
        check_fields(self)


@known_arguments
@dataclass(frozen=True)
class AnswerPrompt:
    """The template that presents a question to the model.

    To use a custom prompt, replace fields or override `human` in a subclass. With `answer_phrase=None`, the whole text
    is the answer: nothing is appended to force a short one.

    Raises:
        ConfigurationError: If an exemplar lacks the answer phrase, an end mark comes without one, or `with_passages`
            lacks a placeholder.
    """

    instructions: str = (
        "Answer the question. Think step by step in a few short sentences, then finish with a sentence that begins "
        'with "So the answer is".'
    )
    exemplars: tuple[Exemplar, ...] = ()
    answer_phrase: str | None = "So the answer is"
    answer_end: str | None = None
    """Mark that ends the short answer after the phrase, such as `</answer>`; None: the end of its sentence."""
    with_passages: str = (
        "Use these passages where they help:\n{passages}\n\nAnswer in the same way as before.\n\n{question}"
    )
    stop: tuple[str, ...] = ("\nQuestion:", "\n\n")
    """Strings that end an answer."""

    def __post_init__(self) -> None:
        check_fields(self)
        for exemplar in self.exemplars:
            if self.answer_phrase is not None and self.answer_phrase not in exemplar.answer:
                raise ConfigurationError(
                    f"the exemplar for {exemplar.question!r} does not contain {self.answer_phrase!r}, so the model "
                    "would not learn to write it; end its answer with that phrase, or set answer_phrase=None"
                )
        if self.answer_end is not None and (self.answer_phrase is None or not self.answer_end.strip()):
            raise ConfigurationError(
                f"answer_end is {self.answer_end!r} and answer_phrase {self.answer_phrase!r}; an end mark needs a "
                "phrase, such as answer_phrase='<answer>', answer_end='</answer>'"
            )
        for name in ("{passages}", "{question}"):
            if name not in self.with_passages:
                raise ConfigurationError(f"with_passages lacks {name}")

    def human(self, question: str, passages: Sequence[Passage]) -> str:
        """Return the last user message."""
        asked = f"Question: {question}"
        if not passages:
            return asked
        # Not str.format, and in one pass: passages and questions may contain braces, and even a placeholder.
        texts = {"question": asked, "passages": render(passages)}
        return re.sub(r"\{(question|passages)\}", lambda match: texts[match[1]], self.with_passages)

    def messages(self, question: str, passages: Sequence[Passage]) -> list[BaseMessage]:
        """Return the conversation up to the answer."""
        messages: list[BaseMessage] = [SystemMessage(self.instructions)]
        for exemplar in self.exemplars:
            messages += [HumanMessage(self.human(exemplar.question, ())), AIMessage(exemplar.answer)]
        return [*messages, HumanMessage(self.human(question, passages))]

    def with_system(self, system: str) -> AnswerPrompt:
        """Return this prompt with the user's system text after the instructions; the same prompt if the text is empty.

        Instructions and system text form one system message, because most chat templates accept only one. The
        `messages` method of a subclass is preserved.
        """
        if not system:
            return self

        def messages(question: str, passages: Sequence[Passage]) -> list[BaseMessage]:
            first, *others = self.messages(question, passages)
            if not isinstance(first, SystemMessage):
                return [SystemMessage(system), first, *others]
            told = f"{first.text}\n\n{system}" if first.text else system
            return [SystemMessage(told), *others]

        prompt = copy.copy(self)
        object.__setattr__(prompt, "messages", messages)
        return prompt


# All invented, so that a fact that a weak model copies from an example can be told apart from what the model knows.
_REASONED = (
    Exemplar(
        "Which of the two lighthouses was lit first, the one on Skarne Ness or the one at Vallin Head?",
        "The lighthouse on Skarne Ness was lit in 1698. The lighthouse at Vallin Head was lit in 1811. 1698 is earlier "
        "than 1811. So the answer is the one on Skarne Ness.",
    ),
    Exemplar(
        "In which country was the inventor of the Brannel loom born?",
        "The Brannel loom was invented by Teodor Askelund. Teodor Askelund was born in Orrby in Velland. "
        "So the answer is Velland.",
    ),
    Exemplar(
        "Did the composer of the opera Mirabeth die before the Harrow War began?",
        "The opera Mirabeth was composed by Ansel Dorvany. Ansel Dorvany died in 1904. The Harrow War began in "
        "1914, so he died before it. So the answer is yes.",
    ),
    Exemplar(
        "Who was the father of the queen that Prince Haldrec of Saxe-Torven married?",
        "Prince Haldrec of Saxe-Torven married Queen Isaura. The father of Queen Isaura was Prince Wolmar, Duke of "
        "Menth. So the answer is Prince Wolmar, Duke of Menth.",
    ),
    Exemplar(
        "Are both the quillfin and the marl eel fish?",
        "The quillfin is a kind of perch, and perches are fish. The marl eel is a fish of muddy rivers as well. "
        "So the answer is yes.",
    ),
    Exemplar(
        "What is the name of the river on which the birthplace of the astronomer Johann Mestler lies?",
        "The astronomer Johann Mestler was born in Oberhalden. Oberhalden lies on the river Wend. "
        "So the answer is the Wend.",
    ),
    Exemplar(
        "Which film came out earlier, The Glass Meridian or Low Water?",
        "The film The Glass Meridian came out in 1927. The film Low Water came out in 1931. So the answer is The Glass "
        "Meridian.",
    ),
    Exemplar(
        "What is the capital of the country in which the Tesmir Lakes lie?",
        "The Tesmir Lakes lie in Karvonia. The capital of Karvonia is Zelbrad. So the answer is Zelbrad.",
    ),
)


@known_arguments
def reasoned_prompt(exemplars: int = 4) -> AnswerPrompt:
    """Return the default prompt with the first `exemplars` of the built-in worked examples.

    Raises:
        ConfigurationError: If there are fewer examples than that.
    """
    check_type("exemplars", exemplars, int, "a whole number, such as exemplars=4")
    if not 0 <= exemplars <= len(_REASONED):
        raise ConfigurationError(f"exemplars is {exemplars}; there are 0 to {len(_REASONED)} to choose from")
    return AnswerPrompt(exemplars=_REASONED[:exemplars])
