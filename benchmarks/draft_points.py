"""Record the points of drafts at which retrieval might be needed, with the output of every trigger and formulator.

An answer is drafted without passages. Each of its sentences is also written with the supporting paragraphs in the
prompt. If the unaided sentence is wrong and the aided one right (`benchmarks.fact_labels`), retrieval was needed at
this point; the aided sentence then replaces the other one, as after a successful retrieval, and the rest is drafted
again without passages. The text before each point is therefore as correct as passages can make it.

Nothing is retrieved and no trigger decides: each trigger scores the sentence, higher if it asks more strongly for
retrieval. At points that needed retrieval, each query formulator states its queries, all for the same token: the first
one of the first fact that no supporting paragraph contains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage

from benchmarks.datasets import Paragraph, Question
from benchmarks.fact_labels import Labelled, judge, told_by
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.draft import AttentionRows, Draft, DraftView, Signal, Unit, Verdict
from langgraph_dynrag.drafts.sampled_ends import SampledEnds, SampleSpec
from langgraph_dynrag.drafts.tasks import DraftResult, DraftTask
from langgraph_dynrag.evidence import Passage, passage
from langgraph_dynrag.generators.local import LocalGenerator
from langgraph_dynrag.prompts import reasoned_prompt
from langgraph_dynrag.queries import (
    QFS,
    ExplicitQuestion,
    KnownWords,
    LastSentence,
    LastTokens,
    MaskedSentence,
    Rewrite,
    WithQuestion,
)
from langgraph_dynrag.queries import Question as TheQuestion
from langgraph_dynrag.queries.base import QueryFormulator
from langgraph_dynrag.reflection.base import SegmentSelection
from langgraph_dynrag.reflection.beam import Hypothesis, Segment
from langgraph_dynrag.reflection.instruct import InstructReflector
from langgraph_dynrag.reflection.scores import Critique, Weights, score
from langgraph_dynrag.search_tags.formats import SEARCH
from langgraph_dynrag.search_tags.prompts import tag_prompt
from langgraph_dynrag.steps.task import derived_seed
from langgraph_dynrag.triggers import (
    ETC,
    RIND,
    Entropy,
    EveryNTokens,
    EverySentence,
    Once,
    Reflection,
    SelfAwareUncertainty,
    TokenProbability,
)
from langgraph_dynrag.triggers.base import Trigger
from rag_backbone.text.units import not_a_stop_word

EXEMPLARS = 6
TOKENS = 100
_SENTENCE = Unit("sentence")
_SIGNALS: frozenset[Signal] = frozenset({"logprob", "entropy", "attention"})
_FAR_ABOVE = 1e3
"""The score of a judgement for which every sample was empty: more uncertain than any measured value."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A trigger with its preset's threshold, and how its verdict is converted to a score."""

    trigger: Trigger
    whole: bool = False
    """Whether it judges the whole draft, as the published code does."""
    sign: int = 1
    """-1 if low values ask for retrieval."""

    def score(self, verdict: Verdict, sentence: int) -> float | None:
        """Return the score of a draft's first sentence, which has `sentence` tokens."""
        own = [self.sign * s for s in verdict.scores[:sentence] if s is not None]
        if self.whole or (verdict.score is None and own):
            return max(own, default=None)
        return None if verdict.score is None else self.sign * verdict.score

    def fires(self, verdict: Verdict, sentence: int) -> bool:
        """Return whether the trigger fires in that sentence at its preset's threshold."""
        return any(t < sentence for t in verdict.hits) if self.whole else verdict.retrieve


def watched(samples: int) -> dict[str, Watched]:
    """Return the triggers that read a draft's signals, by name."""
    return {
        "token probability, min (FLARE)": Watched(TokenProbability(0.8), sign=-1),
        "token probability, mean": Watched(TokenProbability(0.9, "mean"), sign=-1),
        "entropy": Watched(Entropy(2.0)),
        "RIND, paper (DRAGIN)": Watched(RIND(0.005)),
        "RIND, reference": Watched(RIND(0.8, "reference"), whole=True),
        "trend of entropy, paper (ETC)": Watched(ETC(0.5)),
        "trend of entropy, reference": Watched(ETC(1.3, "reference"), whole=True),
        f"uncertainty of {samples} samples (SeaKR)": Watched(
            SelfAwareUncertainty(-6.0, SampleSpec(samples=samples, max_tokens=64))
        ),
        "reflection, asked (Self-RAG)": Watched(Reflection(0.2)),
    }


SIGNALS_ONLY = (
    "token probability, min (FLARE)",
    "token probability, mean",
    "entropy",
    "RIND, paper (DRAGIN)",
    "trend of entropy, paper (ETC)",
)
"""The watched triggers that cost no forward pass of their own."""
FORMULATORS: dict[str, QueryFormulator] = {
    "question": TheQuestion(),
    "last sentence": LastSentence(),
    "last 16 tokens": LastTokens(16),
    "masked sentence (FLARE)": MaskedSentence(0.4),
    "explicit questions (FLARE)": ExplicitQuestion(0.4),
    "attention, paper (DRAGIN)": QFS(25),
    "attention, reference (DRAGIN)": QFS(25, "reference"),
    "words known (SeaKR)": KnownWords(),
    "question, last sentence": WithQuestion(LastSentence()),
    "question, masked sentence": WithQuestion(MaskedSentence(0.4)),
    "rewritten by the model": Rewrite(),
}
TAG, TAG_QUERY, RIGHT = "search tag (its probability)", "search tag, filled by the model", "the right sentence"


@dataclass
class Answer:
    """An answer that is being drafted."""

    question: Question
    text: str = ""
    ids: tuple[int, ...] = ()
    history: list[float] = field(default_factory=list)
    """Entropies of the answer's content tokens."""
    known: set[str] = field(default_factory=set)
    """Ids of the supporting paragraphs that the answer's right sentences repeat."""

    def grow(self, draft: Draft, tokens: int) -> None:
        """Accept the first `tokens` tokens of a draft."""
        content = not_a_stop_word()(draft.words)
        for t in range(tokens):
            word = draft.word_of_token[t]
            if draft.entropies is not None and word is not None and content[word]:
                self.history.append(draft.entropies[t])
        taken = draft[:tokens]
        self.text += taken.text
        self.ids += taken.token_ids or ()

    def learn(self, sentence: str, labelled: Labelled) -> Paragraph | None:
        """Record and return the paragraph that a right sentence repeats, if any."""
        source = told_by(sentence, labelled, self.question) if labelled.label == "right" else None
        if source is not None:
            self.known.add(source.id)
        return source


class PointWriter:
    """Drafts answers and records the points at their sentences.

    Args:
        chat: The model.
        samples: Number of samples for SeaKR's trigger; 0 leaves the trigger out.
        signals_only: Whether to leave out all triggers and formulators that run the model again, and to record the
            signals of each sentence instead: several times as fast. Records with and without are kept apart.
    """

    def __init__(self, chat: LocalChatModel, *, samples: int = 5, signals_only: bool = False) -> None:
        self.generator = LocalGenerator(chat)
        self.prompt = reasoned_prompt(EXEMPLARS)
        self.watched = watched(samples) if samples else {k: w for k, w in watched(1).items() if "SeaKR" not in k}
        if signals_only:
            self.watched = {k: self.watched[k] for k in SIGNALS_ONLY}
        self._signals_only = signals_only
        self._chat = chat
        self._samples = samples
        self._reflector = InstructReflector(chat, SegmentSelection())
        self._tags = tag_prompt(SEARCH)

    @property
    def description(self) -> dict[str, Any]:
        """Everything that a record depends on, except the question."""
        return {
            "triggers": repr(self.watched),
            "formulators": repr(FORMULATORS),
            "tokens": TOKENS,
            "exemplars": EXEMPLARS,
            "fingerprint": self._chat.lm.fingerprint,
            **({"signals_only": True} if self._signals_only else {}),
        }

    def write(self, question: Question) -> dict[str, Any]:
        """Draft the answer to a question; return its points, and the unaided and the corrected text."""
        answer = Answer(question)
        points: list[dict[str, Any]] = []
        rest = self._draft(answer)
        unaided = rest.draft.text
        while len(rest.draft) and len(answer.ids) < TOKENS:
            judged = _SENTENCE.length(rest.draft) or len(rest.draft)
            point, aided = self._point(answer, rest, judged)
            points.append({"index": len(points), **point})
            if point["needed"]:
                source = answer.learn(aided.text, self._label(answer, aided.text))
                answer.grow(aided, len(aided))
                over = aided.ended == "end"
            else:
                sentence = rest.draft[:judged].text
                source = answer.learn(sentence, self._label(answer, sentence))
                answer.grow(rest.draft, judged)
                over = False
            points[-1]["source"] = None if source is None else source.id
            if over or (self.prompt.answer_phrase or "") in answer.text:
                break
            rest = self._draft(answer) if point["needed"] else _after_tokens(rest, judged)
        return {"points": points, "unaided": unaided, "corrected": answer.text}

    def unaided(self, question: Question) -> list[DraftView]:
        """Draft an answer without passages, and return the view of each of its sentences."""
        answer = Answer(question)
        rest = self._draft(answer)
        views = []
        while len(rest.draft) and (self.prompt.answer_phrase or "\0") not in answer.text:
            judged = _SENTENCE.length(rest.draft) or len(rest.draft)
            views.append(self.view(answer, rest.draft, judged, rest.attention))
            answer.grow(rest.draft, judged)
            rest = _after_tokens(rest, judged)
        return views

    def plain_draft(self, question: Question) -> int:
        """Draft an answer without signals and return its number of tokens."""
        task = replace(self._task(Answer(question)), needs=frozenset())
        return len(self.generator.draft(task, {}, None).draft)

    # ------------------------------------------------------------------ a point

    def _point(self, answer: Answer, rest: DraftResult, judged: int) -> tuple[dict[str, Any], Draft]:
        sentence = rest.draft[:judged].text
        aided = self._draft(answer, [p for p in answer.question.paragraphs if p.supporting], _SENTENCE).draft
        aided = aided[: _SENTENCE.length(aided) or len(aided)]
        without, with_ = self._label(answer, sentence), self._label(answer, aided.text)
        needed = without.label == "wrong" and with_.label == "right"
        view = self.view(answer, rest.draft, judged, rest.attention)
        point: dict[str, Any] = {
            "before": answer.text,
            "sentence": sentence,
            "aided": aided.text,
            "without": without.label,
            "with": with_.label,
            "needed": needed,
            "tokens": judged,
            "missing": sorted(answer.question.supporting - answer.known),
            "known": len(answer.known),
            "triggers": self._judged(answer, view),
        }
        if self._signals_only:
            unit = view.unit
            point["signals"] = {
                "pieces": unit.pieces,
                "logprobs": [round(p, 5) for p in unit.logprobs],
                "entropies": [round(h, 5) for h in unit.entropies or ()],
            }
        elif needed:
            point["queries"] = {**self._formulated(answer, view, without), RIGHT: [aided.text.strip()]}
        return point, aided

    def _label(self, answer: Answer, sentence: str) -> Labelled:
        return judge(sentence, answer.text, answer.question, self.prompt.answer_phrase or "")

    def _judged(self, answer: Answer, view: DraftView) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name, watching in self.watched.items():
            started = time.perf_counter()
            seen = self._with_retrieval(answer, view) if isinstance(watching.trigger, Reflection) else view
            if watching.whole:
                seen = self.view(answer, view.draft, len(view.draft), view.attention)
            verdict = watching.trigger.judge(seen)
            found[name] = {
                "score": _FAR_ABOVE
                if verdict.reason == "every sample was empty"
                else watching.score(verdict, view.judged),
                "fires": watching.fires(verdict, view.judged),
                "seconds": time.perf_counter() - started,
                "sampled": (verdict.cost or {}).get("tokens", 0),
            }
        if not self._signals_only:
            started = time.perf_counter()
            found[TAG] = {"score": self._tag_logprob(answer), "fires": None}
            found[TAG]["seconds"] = time.perf_counter() - started
        return {**found, **_fixed(answer, view)}

    def _with_retrieval(self, answer: Answer, view: DraftView) -> DraftView:
        worth = score((0.0,), Critique(), Weights())
        written = Segment(Draft((answer.text,)), answer.ids, None, Critique(), worth, False)
        hypothesis = Hypothesis((written,) if answer.text.strip() else ())
        asked = self._reflector.retrieval(answer.question.text, self.prompt, [hypothesis])
        return replace(view, retrieval=asked.probabilities[0])

    def _tag_logprob(self, answer: Answer) -> float:
        """Return the log-probability that the model, prompted to use search tags, opens one at this point."""
        opening = self._chat.get_token_ids(_after(answer.text, SEARCH.call[0]))
        messages = [*self._tags.messages(answer.question.text, ()), AIMessage(answer.text)]
        scored = self._chat.lm.engine.score(self._chat.encode(messages).ids, opening)
        return float(scored.logprobs.sum())

    # ------------------------------------------------------------------ queries

    def _formulated(self, answer: Answer, view: DraftView, without: Labelled) -> dict[str, list[str]]:
        wrong = without.unsupported or without.facts
        spans = view.unit.spans
        hits = [t for t, s in enumerate(spans) if any(s.start < w.end and w.start < s.end for w in wrong)] or [0]
        verdict = Verdict(True, "a fact is missing", position=hits[0], hits=tuple(hits), trigger="known need")
        found = {}
        for name, formulator in FORMULATORS.items():
            plan = formulator.plan(view, verdict)
            replies = self.generator.ask(plan.prompts, {}) if plan.prompts else []
            found[name] = list(plan.queries or formulator.finish(view, verdict, replies))
        found[TAG_QUERY] = [self._tag_query(answer)]
        return found

    def _tag_query(self, answer: Answer) -> str:
        """Return the query that the model, prompted to use search tags, writes into a tag opened for it."""
        begun = answer.text + _after(answer.text, SEARCH.call[0])
        task = DraftTask(
            answer.question.text,
            self._tags.messages(answer.question.text, ()),
            begun,
            None,
            Draft(),
            None,
            Unit("until", until=SEARCH.call[1]),
            32,
            frozenset(),
            stop=("\n",),
        )
        return self.generator.draft(task, {}, None).draft.text.split(SEARCH.call[1])[0].strip()

    # ------------------------------------------------------------------ drafts

    def _task(self, answer: Answer, paragraphs: Sequence[Paragraph] = (), unit: Unit | None = None) -> DraftTask:
        return DraftTask(
            question=answer.question.text,
            messages=self.prompt.messages(answer.question.text, _passages(paragraphs)),
            accepted=answer.text,
            accepted_ids=answer.ids,
            carried=Draft(),
            carried_attention=None,
            unit=unit or Unit("all"),
            limit=max(1, TOKENS - len(answer.ids)),
            needs=_SIGNALS if unit is None else _SIGNALS - {"attention"},
            stop=self.prompt.stop,
            answer_phrase=self.prompt.answer_phrase,
        )

    def _draft(self, answer: Answer, paragraphs: Sequence[Paragraph] = (), unit: Unit | None = None) -> DraftResult:
        return self.generator.draft(self._task(answer, paragraphs, unit), {}, None)

    def view(self, answer: Answer, draft: Draft, judged: int, attention: AttentionRows | None) -> DraftView:
        """Return the view of a draft after an answer, as triggers and query formulators see it."""
        task = self._task(answer)
        seed = derived_seed(0, answer.question.text, len(answer.ids), 0)

        def sample_ends(spec: SampleSpec) -> SampledEnds:
            return self.generator.sample_ends(task, spec, seed)

        return DraftView(
            answer.question.text,
            answer.text,
            draft,
            judged,
            tuple(answer.history),
            attention,
            self.generator.context(task),
            self.generator.attend_alone,
            sample_ends,
        )


def _fixed(answer: Answer, view: DraftView) -> dict[str, dict[str, Any]]:
    """Return the decisions of triggers that read no signals, as scores of 0 or 1."""
    begun = len(answer.ids)
    yes: Mapping[str, Callable[[], bool]] = {
        repr(Once()): lambda: begun == 0,
        repr(EverySentence()): lambda: True,
        repr(EveryNTokens(16)): lambda: (begun + view.judged) // 16 > begun // 16,
    }
    return {name: {"score": float(says()), "fires": says(), "seconds": 0.0} for name, says in yes.items()}


def _after_tokens(rest: DraftResult, tokens: int) -> DraftResult:
    """Return what is left of a draft after its first tokens."""
    rows = rest.attention
    return DraftResult(rest.draft[tokens:], None if rows is None else rows.shifted(tokens))


def _after(text: str, mark: str) -> str:
    return f" {mark}" if text and not text[-1].isspace() else mark


def _passages(paragraphs: Sequence[Paragraph]) -> list[Passage]:
    made = [passage(p.text, {"title": p.title}, p.id) for p in paragraphs]
    return [p for p in made if p is not None]
