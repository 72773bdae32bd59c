"""Reflection by a model trained for it: the probabilities of its reflection tokens (Self-RAG, algorithm 1).

The model sees its answer in the format of its training data, passages included:
`[Retrieval]<paragraph>title, text</paragraph>[Relevant]a segment[Fully supported][Retrieval]...`. Readers only see the
segments. A retrieval token is never sampled: the graph decides, and writes the token for the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import BaseMessage, HumanMessage

from langgraph_dynrag.chat_model.chat_template import message_text
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.draft import EndOfDraft
from langgraph_dynrag.evidence import Passage
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.reflection.base import ContinuationBatch, Expansion, Path, RetrievalJudgements, SegmentSelection
from langgraph_dynrag.reflection.beam import Hypothesis, Segment
from langgraph_dynrag.reflection.local import EncodedExpansion, JudgedSegments, LocalReflector, Stop
from langgraph_dynrag.reflection.scores import Probabilities, normalised, score
from langgraph_dynrag.reflection.segments import cut, is_over, spaced
from langgraph_dynrag.reflection.vocabulary import ReflectionVocabulary, harmless
from rag_backbone.engine.requests import Generation, Request, TokenCounts
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals, TokenStep


@dataclass(frozen=True)
class InstructionPrompt(AnswerPrompt):
    """The question alone, as in the training of Self-RAG's models, whose passages stand in the answer."""

    instructions: str = ""
    answer_phrase: str | None = None
    stop: tuple[str, ...] = ()

    def human(self, question: str, passages: Sequence[Passage]) -> str:  # noqa: ARG002
        """Return the question."""
        return question

    def messages(self, question: str, passages: Sequence[Passage]) -> list[BaseMessage]:
        """Return the instructions, if there are any, and the question."""
        text = self.human(question, passages)
        return [HumanMessage(f"{self.instructions}\n\n{text}" if self.instructions else text)]


class TokenReflector(LocalReflector):
    """Judges and writes with a model's reflection tokens.

    If the tokenizer has no chat template, the published layout is used: `### Instruction:` and `### Response:`.

    Raises:
        ConfigurationError: If the vocabulary lacks reflection tokens; the message lists them.
    """

    path: Path = "tokens"
    margin: int = 4
    """Room for relevance, support, utility, and the token that shows that the limit is reached."""

    def __init__(self, chat: LocalChatModel, selection: SegmentSelection) -> None:
        super().__init__(chat, selection)
        self.vocabulary = ReflectionVocabulary.of(chat.lm)

    @property
    def prompt(self) -> AnswerPrompt:
        """The question alone."""
        return InstructionPrompt()

    def retrieval(self, question: str, prompt: AnswerPrompt, hypotheses: Sequence[Hypothesis]) -> RetrievalJudgements:
        """Return the probabilities of the retrieval tokens as the next token."""
        retrieval = self.vocabulary.retrieval
        found: list[Probabilities] = []
        counts = TokenCounts()
        for h in hypotheses:
            context = [*self._asked(prompt, question), *h.token_ids]
            if len(context) >= self.engine.context_window:  # nothing more fits, with or without a passage
                found.append({"yes": 0.0, "no": 1.0})
                continue
            # Without a current passage there is none to continue with.
            names = [name for name in retrieval if name != "continue" or h.passage is not None]
            asked = next_token(context, [retrieval[name] for name in names], self.engine.end_ids)
            made = self.engine.generate(asked)
            counts += made.counts
            found.append(normalised(dict(zip(names, made.steps[0].token_logprobs, strict=True))))
        return RetrievalJudgements(tuple(found), counts)

    def _row(self, writing: ContinuationBatch, expansion: Expansion) -> EncodedExpansion:
        retrieval, marks = self.vocabulary.retrieval, self.vocabulary.marks
        passage = expansion.passage
        if passage is None:
            added = [retrieval["no"]]
        elif expansion.fresh:
            head = f"{passage['title']}\n" if passage["title"] else ""
            text = harmless(self.chat.lm.tokenizer, head + passage["text"])
            added = [retrieval["yes"], marks["open"], *self.engine.encode(text), marks["close"]]
        else:
            added = [retrieval["continue"]]
        context = [*self._asked(writing.prompt, writing.question), *expansion.hypothesis.token_ids]
        return EncodedExpansion(expansion, context + added, tuple(added))

    def _stop(self, writing: ContinuationBatch, expansion: Expansion) -> Stop:
        return _AtRetrieval(writing.deadline, self.vocabulary, expansion.limit)

    def _most(self, expansion: Expansion) -> int:
        return expansion.limit + self.margin

    def _signals(self) -> Signals:
        return Signals(entropy=True, tokens=self.vocabulary.judged)

    def _segments(
        self,
        writing: ContinuationBatch,  # noqa: ARG002
        rows: Sequence[EncodedExpansion],
        drafts: Sequence[tuple[Generation, EndOfDraft]],
    ) -> JudgedSegments:
        return JudgedSegments([self._segment(row, made, why) for row, (made, why) in zip(rows, drafts, strict=True)])

    def _segment(self, row: EncodedExpansion, made: Generation, why: EndOfDraft) -> Segment:
        e = row.expansion
        evidence = e.passage is not None
        part = cut(made.steps, self.vocabulary, why, fresh=e.fresh, evidence=evidence, limit=e.limit)
        draft = spaced(e.hypothesis.text, part.draft)
        # If the model wrote nothing despite having time, its next segments would be empty too.
        ended = draft.ended == "end" or (draft.ended != "deadline" and not draft.text.strip())
        worth = score(draft.logprobs, part.critique, self.selection.weights)
        return Segment(draft, (*row.added, *part.token_ids), e.passage, part.critique, worth, ended)

    def _asked(self, prompt: AnswerPrompt, question: str) -> list[int]:
        tokenizer = self.chat.lm.tokenizer
        messages = prompt.messages(question, ())
        harmless_ones = [m.model_copy(update={"content": harmless(tokenizer, message_text(m))}) for m in messages]
        if tokenizer.chat_template:
            return self.chat.encode(harmless_ones).ids
        asked = "\n\n".join(message_text(m) for m in harmless_ones)
        return list(tokenizer(f"### Instruction:\n{asked}\n\n### Response:\n").input_ids)


class _AtRetrieval(Stop):
    def __init__(self, deadline: float, vocabulary: ReflectionVocabulary, limit: int) -> None:
        super().__init__(deadline)
        self._vocabulary = vocabulary
        self._left = limit

    def reason(self, step: TokenStep) -> EndOfDraft | None:
        if is_over(step, self._vocabulary):
            return "unit"
        # Only a visible token beyond the limit ends it, because the judgements follow the last allowed one.
        self._left -= step.token_id not in self._vocabulary.ids
        return "limit" if self._left < 0 else None


def next_token(prompt: Sequence[int], tokens: Sequence[int], end_ids: frozenset[int]) -> Request:
    """Return a request whose only step reports the log-probabilities of `tokens` after the prompt."""
    # An end-of-sequence token would produce no step. Signals are recorded before the bias, which does not affect them.
    bias = dict.fromkeys(end_ids, float("-inf"))
    return Request(
        list(prompt), max_new_tokens=1, sampling=Sampling(logit_bias=bias), signals=Signals(tokens=tuple(tokens))
    )
