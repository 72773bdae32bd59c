"""Reflection by any instruct model: Self-RAG's five judgements as questions with few possible answers.

Each judgement is the distribution over its answers at the position after a short prompt (see
`langgraph_dynrag.reflection.classification`); nothing is parsed. Segments are sentences or, in the short form, whole
answers, written with the passage in the prompt. A model that was not trained to judge itself is biased towards some of
the answers, so the published threshold of 0.2 is only a starting point: calibrate it for the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, HumanMessage

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.draft import Draft, EndOfDraft, Unit
from langgraph_dynrag.drafts.stop_at_unit import StopAtUnit
from langgraph_dynrag.drafts.tasks import DraftTask
from langgraph_dynrag.evidence import titled
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.reflection.base import ContinuationBatch, Expansion, Path, RetrievalJudgements, SegmentSelection
from langgraph_dynrag.reflection.beam import Hypothesis, Segment
from langgraph_dynrag.reflection.classification import Forms, shares, surface_forms
from langgraph_dynrag.reflection.local import EncodedExpansion, JudgedSegments, LocalReflector, Stop
from langgraph_dynrag.reflection.scores import UTILITY, Critique, Probabilities, score
from langgraph_dynrag.reflection.tokens import next_token
from langgraph_dynrag.short_answer import find_phrase, is_complete
from rag_backbone.engine.requests import Generation, TokenCounts
from rag_backbone.engine.signals import Signals, TokenStep

_SENTENCE = Unit("sentence")
_WHOLE = Unit("all")


@dataclass(frozen=True)
class JudgementQuestion:
    """A question to the model, and the word that each answer starts with.

    The placeholders `{question}`, `{passage}`, `{answer}` and `{statement}` are replaced by what is judged.
    """

    text: str
    words: Mapping[str, str]


RETRIEVE = JudgementQuestion(
    "Question: {question}\n\nWould a passage from an encyclopedia help to answer this question correctly? "
    "Reply with Yes or No.",
    {"yes": "Yes", "no": "No"},
)
RETRIEVE_MORE = JudgementQuestion(
    "Question: {question}\nAnswer so far: {answer}\n\nWould a passage from an encyclopedia help to write the next "
    "sentence of this answer correctly? Reply with Yes or No.",
    {"yes": "Yes", "no": "No"},
)
RETRIEVE_AGAIN = JudgementQuestion(
    "Passage: {passage}\nQuestion: {question}\nAnswer so far: {answer}\n\nWhat does the next sentence of this answer "
    "need? Reply with New for another passage, Same for the passage above, or None if it needs no passage.",
    {"yes": "New", "no": "None", "continue": "Same"},
)
RELEVANT = JudgementQuestion(
    "Passage: {passage}\nQuestion: {question}\n\nDoes the passage tell something that helps to answer the question? "
    "Reply with Yes or No.",
    {"relevant": "Yes", "irrelevant": "No"},
)
SUPPORTED = JudgementQuestion(
    "Passage: {passage}\nQuestion: {question}\nStatement: {statement}\n\nDoes the passage say what the statement says? "
    "Reply with Fully, Partly or No.",
    {"full": "Fully", "partial": "Partly", "none": "No"},
)
USEFUL = JudgementQuestion(
    "Question: {question}\nAnswer: {answer}\n\nHow useful is the answer to whoever asked the question? Reply with a "
    "number from 1 (useless) to 5 (just what was asked for).",
    {name: name for name in UTILITY},
)


class InstructReflector(LocalReflector):
    """Judges and writes with an instruct model, by asking it questions."""

    path: Path = "classification"
    margin: int = 96
    """Generous upper bound on how much longer the judgement prompts are than the writing prompt, in tokens."""

    def __init__(self, chat: LocalChatModel, selection: SegmentSelection) -> None:
        super().__init__(chat, selection)
        self._forms: dict[str, Forms] = {}

    def retrieval(self, question: str, prompt: AnswerPrompt, hypotheses: Sequence[Hypothesis]) -> RetrievalJudgements:  # noqa: ARG002
        """Return whether the next sentence needs a passage and, if there is a current one, whether it still serves."""
        asked = _Asking(self, question)
        found = []
        for h in hypotheses:
            if not h.segments:
                found.append(asked(RETRIEVE))
            elif h.passage is None:
                found.append(asked(RETRIEVE_MORE, answer=h.text))
            else:
                found.append(asked(RETRIEVE_AGAIN, answer=h.text, passage=titled(h.passage)))
        return RetrievalJudgements(tuple(found), asked.counts)

    def _row(self, writing: ContinuationBatch, expansion: Expansion) -> EncodedExpansion:
        passages = () if expansion.passage is None else (expansion.passage,)
        messages = writing.prompt.messages(writing.question, passages)
        h = expansion.hypothesis
        written = AIMessage(h.text, response_metadata={"dynprag": {"token_ids": list(h.token_ids)}})
        return EncodedExpansion(expansion, self.chat.encode([*messages, written]).ids, ())

    def _stop(self, writing: ContinuationBatch, expansion: Expansion) -> Stop:
        return _AtUnit(writing, expansion, self._unit)

    def _signals(self) -> Signals:
        return Signals(entropy=True)

    def _segments(
        self,
        writing: ContinuationBatch,
        rows: Sequence[EncodedExpansion],
        drafts: Sequence[tuple[Generation, EndOfDraft]],
    ) -> JudgedSegments:
        asked = _Asking(self, writing.question)
        segments = [
            self._segment(writing, row.expansion, _draft(made, why), asked)
            for row, (made, why) in zip(rows, drafts, strict=True)
        ]
        return JudgedSegments(segments, asked.counts)

    def _segment(self, writing: ContinuationBatch, expansion: Expansion, draft: Draft, asked: _Asking) -> Segment:
        before, passage = expansion.hypothesis.text, expansion.passage
        part = draft[: self._unit.length(draft) or len(draft)]
        over = draft.ended == "end" and len(part) == len(draft)
        complete = _is_complete(before, part, draft, writing.prompt.answer_phrase)
        said = part.text.strip()
        critique = Critique()
        if said:
            critique = Critique(
                relevance=asked(RELEVANT, passage=titled(passage)) if passage is not None and expansion.fresh else None,
                support=asked(SUPPORTED, passage=titled(passage), statement=said) if passage is not None else None,
                utility=asked(USEFUL, answer=(before + part.text).strip()),
            )
        worth = score(part.logprobs, critique, self.selection.weights)
        ended = over or complete or (draft.ended != "deadline" and not said)
        return Segment(part, part.token_ids or (), passage, critique, worth, ended)

    @property
    def _unit(self) -> Unit:
        """The unit of text written with one passage."""
        return _WHOLE if self.selection.form == "short" else _SENTENCE

    def forms(self, judgement: JudgementQuestion) -> Forms:
        """Return the token ids of a judgement's answers."""
        if judgement.text not in self._forms:
            encode = self.engine.encode
            self._forms[judgement.text] = {
                name: tuple(dict.fromkeys(tuple(encode(form)) for form in surface_forms(word)))
                for name, word in judgement.words.items()
            }
        return self._forms[judgement.text]


class _Asking:
    """Judgement questions about the answers to one question, each asked only once."""

    def __init__(self, reflector: InstructReflector, question: str) -> None:
        self._reflector = reflector
        self._question = question
        self._known: dict[str, Probabilities] = {}
        self.counts = TokenCounts()

    def __call__(self, judgement: JudgementQuestion, **texts: str) -> Probabilities:
        known = {"question": self._question, **texts}
        # Inserted texts are not scanned for placeholders again.
        prompt = re.sub(r"\{(\w+)\}", lambda match: known[match[1]], judgement.text)
        if prompt not in self._known:
            chat, engine = self._reflector.chat, self._reflector.engine
            ids = chat.encode([HumanMessage(prompt)]).ids

            def next_logprobs(begun: tuple[int, ...], tokens: Sequence[int]) -> Sequence[float]:
                made = engine.generate(next_token([*ids, *begun], tokens, engine.end_ids))
                self.counts += made.counts
                return made.steps[0].token_logprobs

            self._known[prompt] = shares(self._reflector.forms(judgement), next_logprobs)
        return self._known[prompt]


class _AtUnit(Stop):
    def __init__(self, writing: ContinuationBatch, expansion: Expansion, unit: Unit) -> None:
        super().__init__(writing.deadline)
        self._rule = StopAtUnit(
            DraftTask(
                question=writing.question,
                messages=(),
                accepted=expansion.hypothesis.text,
                accepted_ids=None,
                carried=Draft(),
                carried_attention=None,
                unit=unit,
                limit=expansion.limit,
                needs=frozenset(),
                answer_phrase=writing.prompt.answer_phrase,
            )
        )

    def reason(self, step: TokenStep) -> EndOfDraft | None:
        self._rule(step.text)
        return self._rule.ended


def _draft(made: Generation, why: EndOfDraft) -> Draft:
    steps = made.steps
    return Draft(
        tuple(s.text for s in steps),
        tuple(s.logprob for s in steps),
        tuple(s.entropy for s in steps if s.entropy is not None),
        tuple(s.token_id for s in steps),
        why,
    )


def _is_complete(before: str, part: Draft, draft: Draft, phrase: str | None) -> bool:
    """Return whether `part` completes the sentence with the answer phrase, judged by how `draft` continues."""
    if phrase is None or find_phrase(before + part.text, phrase) is None:
        return False
    return is_complete(before + draft.text + ("\n" if draft.ended == "end" else ""), phrase)
