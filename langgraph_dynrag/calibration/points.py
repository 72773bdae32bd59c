"""Label the sentences of drafts by whether a retrieval was needed there, and record their features.

The real graph answers each question. At each sentence, the same sentence is also written with passages that the
retriever finds for the question together with its answer. If the unaided sentence is wrong and the aided one right
(`langgraph_dynrag.calibration.labels`, with these passages as supporting texts), a retrieval was needed; only then does
the graph retrieve, so that the text before the next sentence is as after a good decision. What the retriever does not
find with the answer in the query counts as something that no retrieval would have helped with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langgraph_dynrag.calibration.labels import judge_sentence
from langgraph_dynrag.calibration.questions import CalibrationQuestion
from langgraph_dynrag.calibration.training import LabelledPoint
from langgraph_dynrag.drafts.draft import Draft, DraftView, Signal, Unit, Verdict
from langgraph_dynrag.drafts.tasks import DraftTask
from langgraph_dynrag.evidence import Passage, distinct, passage, within_budget
from langgraph_dynrag.retrieval.retriever import Retriever, call_retriever
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.triggers.features import FEATURES, features_of, signals_of
from langgraph_dynrag.triggers.learned import KnowsFrequencies
from langgraph_dynrag.triggers.probe import DEPTHS
from rag_backbone.errors import ConfigurationError

_SENTENCE = Unit("sentence")


def features_for(retriever: Retriever, signals: frozenset[Signal]) -> tuple[str, ...]:
    """Return the features that these signals and this retriever can give."""
    counts = isinstance(retriever, KnowsFrequencies)
    return tuple(name for name, f in FEATURES.items() if f.needs <= signals and (counts or not f.index))


class PointRecorder:
    """A trigger that labels each sentence, records its features, and retrieves where this was needed.

    Args:
        features: The features to record.
        probe: Whether to record hidden states as well, at the depths of `triggers.probe`.
    """

    def __init__(self, features: Sequence[str], *, probe: bool = False) -> None:
        self.features = tuple(features)
        self._probe = probe
        self.points: list[LabelledPoint] = []
        self._settings: Settings | None = None
        self._asked: CalibrationQuestion | None = None
        self._number = -1
        self._passages: list[Passage] = []

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals that are recorded."""
        states: frozenset[Signal] = frozenset({"hidden_states"}) if self._probe else frozenset()
        return signals_of(self.features) | states | {"logprob"}

    @property
    def unit(self) -> Unit:
        """A sentence."""
        return _SENTENCE

    def before(self, question: str) -> Verdict | None:  # noqa: ARG002
        """Return None, so that the model writes first."""
        return None

    def begin(self, settings: Settings, asked: CalibrationQuestion) -> None:
        """Take the next question, and search for the passages that its answer rests on."""
        self._settings, self._asked, self._number = settings, asked, self._number + 1
        self._passages = _supporting(settings, asked)

    def judge(self, view: DraftView) -> Verdict:
        """Record the sentence, and ask for a retrieval if it was needed."""
        if not view.unit.text.strip():
            return Verdict(False, "nothing was written")
        needed = self._is_needed(view)
        right = bool(view.passages) and not needed and self._label(view, view.unit.text) == "right"
        values = dict(zip(self.features, features_of(view, self.features), strict=True))
        states = view.read_states(DEPTHS) if self._probe and view.read_states is not None else None
        self.points.append(LabelledPoint(self._number, values, needed, states, right))
        logprobs = view.unit.logprobs
        at = min(range(len(logprobs)), key=logprobs.__getitem__) if needed else None
        reason = f"a retrieval was {'' if needed else 'not '}needed"
        return Verdict(needed, reason, position=at, hits=() if at is None else (at,), trigger="label")

    def _is_needed(self, view: DraftView) -> bool:
        if not self._passages or self._label(view, view.unit.text) != "wrong":
            return False  # a second draft would not change the label
        return self._label(view, self._aided(view)) == "right"

    def _label(self, view: DraftView, sentence: str) -> str:
        assert self._settings is not None
        assert self._asked is not None
        return judge_sentence(
            sentence,
            view.accepted,
            self._asked.question,
            answers=self._asked.answers,
            supporting=[f"{p['title']}. {p['text']}" for p in self._passages],
            phrase=self._settings.prompt.answer_phrase,
        ).label

    def _aided(self, view: DraftView) -> str:
        """Return the sentence as written with the passages in the prompt."""
        settings = self._settings
        assert settings is not None
        prompt = settings.prompt
        task = DraftTask(
            question=view.question,
            messages=prompt.messages(view.question, self._passages),
            accepted=view.accepted,
            accepted_ids=None,
            carried=Draft(),
            carried_attention=None,
            unit=_SENTENCE,
            limit=settings.lookahead,
            needs=frozenset(),
            stop=prompt.stop,
            answer_phrase=prompt.answer_phrase,
            answer_end=prompt.answer_end,
        )
        draft = settings.generator.draft(task, {}, None).draft
        return draft[: _SENTENCE.length(draft) or len(draft)].text

    def __repr__(self) -> str:
        return f"PointRecorder({len(self.features)} features)"


def label_points(
    graph: Any, settings: Settings, recorder: PointRecorder, questions: Iterable[CalibrationQuestion]
) -> list[LabelledPoint]:
    """Answer the questions with a graph whose trigger is `recorder`, and return the labelled sentences."""
    for asked in questions:
        recorder.begin(settings, asked)
        graph.invoke({"question": asked.question})
    return recorder.points


def refuse_unanswered(questions: Sequence[CalibrationQuestion]) -> None:
    """Refuse questions without an answer, which cannot be labelled.

    Raises:
        ConfigurationError: If there is one; the message quotes the first.
    """
    if unanswered := [a.question for a in questions if not a.answers]:
        raise ConfigurationError(
            f"sentences are labelled by the correct answers, but {len(unanswered)} of {len(questions)} questions have "
            f"none, the first: {unanswered[0]!r}"
        )


def _supporting(settings: Settings, asked: CalibrationQuestion) -> list[Passage]:
    assert settings.retriever is not None  # checked before anything is drafted
    queries: Mapping[str, None] = dict.fromkeys([f"{asked.question} {asked.answers[0]}", asked.question])
    found = [d for q in queries for d in call_retriever(settings.retriever, q, {}, settings.k)[: settings.k]]
    made = [passage(d.page_content, d.metadata, d.id) for d in found]
    kept = distinct(p for p in made if p is not None)
    return within_budget(kept, settings.context_tokens, settings.generator.count_tokens)[0]
