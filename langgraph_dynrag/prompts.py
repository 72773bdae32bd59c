"""The prompt: instructions and worked examples first, then the passages, then the question.

Everything before the passages is the same for every question, and everything in front of the answer changes only when
the passages do: what comes first is what a prefix cache can keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langgraph_dynrag.evidence import Passage, render
from rag_backbone.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A worked example: a question and a reasoned answer that ends in the answer phrase."""

    question: str
    answer: str


@dataclass(frozen=True)
class AnswerPrompt:
    """How a question is put to the model.

    Subclass it and override `human`, or replace its fields, to use a prompt of your own. With `answer_phrase=None` the
    whole text is the answer: nothing is appended to force a short one.

    Raises:
        ConfigurationError: If an exemplar lacks the answer phrase.
    """

    instructions: str = (
        "Answer the question. Think step by step in a few short sentences, then finish with a sentence that begins "
        'with "So the answer is".'
    )
    exemplars: tuple[Exemplar, ...] = ()
    answer_phrase: str | None = "So the answer is"
    answer_end: str | None = None
    """What ends the short answer behind the phrase, such as `</answer>`; None: the end of its sentence."""
    with_passages: str = (
        "Use these passages where they help:\n{passages}\n\nAnswer in the same way as before.\n\n{question}"
    )
    stop: tuple[str, ...] = ("\nQuestion:", "\n\n")
    """Strings that end an answer."""

    def __post_init__(self) -> None:
        for exemplar in self.exemplars:
            if self.answer_phrase is not None and self.answer_phrase not in exemplar.answer:
                raise ConfigurationError(
                    f"the exemplar for {exemplar.question!r} does not contain {self.answer_phrase!r}, so the model "
                    "would not learn to write it; end its answer with that phrase, or set answer_phrase=None"
                )
        if self.answer_end is not None and (self.answer_phrase is None or not self.answer_end.strip()):
            raise ConfigurationError(
                f"answer_end is {self.answer_end!r} and answer_phrase {self.answer_phrase!r}; an end mark is a string "
                "that ends what a phrase begins, such as answer_phrase='<answer>', answer_end='</answer>'"
            )
        for name in ("{passages}", "{question}"):
            if name not in self.with_passages:
                raise ConfigurationError(f"with_passages lacks {name}")

    def human(self, question: str, passages: Sequence[Passage]) -> str:
        """The last user turn."""
        asked = f"Question: {question}"
        if not passages:
            return asked
        # Not str.format: passages and questions may contain braces.
        text = self.with_passages.replace("{question}", asked)
        return text.replace("{passages}", render(passages))

    def messages(self, question: str, passages: Sequence[Passage]) -> list[BaseMessage]:
        """The conversation up to the answer."""
        messages: list[BaseMessage] = [SystemMessage(self.instructions)]
        for exemplar in self.exemplars:
            messages += [HumanMessage(self.human(exemplar.question, ())), AIMessage(exemplar.answer)]
        return [*messages, HumanMessage(self.human(question, passages))]


_REASONED = (
    Exemplar(
        "Which of the two lighthouses was lit first, Eddystone's first tower or the one on Bell Rock?",
        "Eddystone's first tower was lit in 1698. The lighthouse on Bell Rock was lit in 1811. 1698 is earlier than "
        "1811. So the answer is Eddystone's first tower.",
    ),
    Exemplar(
        "In which country was the inventor of the centrifugal cream separator born?",
        "The centrifugal cream separator was invented by Gustaf de Laval. Gustaf de Laval was born in Orsa in Sweden. "
        "So the answer is Sweden.",
    ),
    Exemplar(
        "Did the composer of the opera Rusalka die before the First World War began?",
        "The opera Rusalka was composed by Antonín Dvořák. Antonín Dvořák died in 1904. The First World War began in "
        "1914, so he died before it. So the answer is yes.",
    ),
    Exemplar(
        "Who was the father of the queen that Prince Albert of Saxe-Coburg and Gotha married?",
        "Prince Albert of Saxe-Coburg and Gotha married Queen Victoria. The father of Queen Victoria was Prince "
        "Edward, Duke of Kent. So the answer is Prince Edward, Duke of Kent.",
    ),
    Exemplar(
        "Are both the axolotl and the olm amphibians?",
        "The axolotl is a salamander, and salamanders are amphibians. The olm is a cave-dwelling salamander as well. "
        "So the answer is yes.",
    ),
    Exemplar(
        "What is the name of the river on which the birthplace of the astronomer Johannes Kepler lies?",
        "The astronomer Johannes Kepler was born in Weil der Stadt. Weil der Stadt lies on the river Würm. "
        "So the answer is the Würm.",
    ),
    Exemplar(
        "Which film came out earlier, Metropolis or M?",
        "The film Metropolis came out in 1927. The film M came out in 1931. So the answer is Metropolis.",
    ),
    Exemplar(
        "What is the capital of the country in which the Plitvice Lakes lie?",
        "The Plitvice Lakes lie in Croatia. The capital of Croatia is Zagreb. So the answer is Zagreb.",
    ),
)


def reasoned_prompt(exemplars: int = 4) -> AnswerPrompt:
    """The default prompt, with a number of the project's own exemplars.

    Raises:
        ConfigurationError: If there are not that many.
    """
    if not 0 <= exemplars <= len(_REASONED):
        raise ConfigurationError(f"exemplars is {exemplars}; there are 0 to {len(_REASONED)} to choose from")
    return AnswerPrompt(exemplars=_REASONED[:exemplars])
