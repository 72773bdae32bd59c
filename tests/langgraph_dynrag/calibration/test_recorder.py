"""A recorder judges like the recorded trigger, never asks for a search, and repeats no expensive computation."""

import math

import numpy as np

from langgraph_dynrag.calibration.questions import CalibrationQuestion
from langgraph_dynrag.calibration.recorder import Recorder, answered, write_drafts
from langgraph_dynrag.drafts.draft import AloneAttention, Draft, DraftView
from langgraph_dynrag.triggers import LearnedTrigger, Never, Once, TokenProbability
from langgraph_dynrag.triggers.base import BaseTrigger
from langgraph_dynrag.triggers.learned_model import LearnedModel


def view(*probabilities, **parts):
    draft = Draft(tuple(f" w{i}" for i in probabilities), tuple(map(math.log, probabilities)), None, None, "end")
    return DraftView("Q?", "", draft, len(draft), **parts)


def test_verdicts_are_those_of_the_trigger_without_the_request_to_retrieve():
    recorder = Recorder(TokenProbability(0.5))
    verdict, own = recorder.judge(view(0.9, 0.2)), TokenProbability(0.5).judge(view(0.9, 0.2))
    assert own.retrieve
    assert (verdict.retrieve, verdict.position, verdict.hits) == (False, None, ())
    assert (verdict.scores, verdict.score, verdict.reason) == (own.scores, own.score, own.reason)
    assert (recorder.needs, recorder.unit) == (TokenProbability().needs, TokenProbability().unit)


def test_a_recorded_piece_can_be_judged_at_any_valid_threshold():
    recorder = Recorder(TokenProbability(0.5))
    recorder.judge(view(0.9, 0.2))
    [piece] = recorder.taken()
    assert [piece.fires(t) for t in (0.1, 0.3, 1.0)] == [False, True, True]
    assert piece.fires(1.5) is None  # no probability
    assert recorder.taken() == ()


def test_verdicts_on_the_question_are_recorded_too():
    recorder = Recorder(Once())
    assert recorder.before("Q?") is None
    assert len(recorder.taken()) == 1
    never = Recorder(Never())
    assert never.before("Q?") is None
    assert never.taken() == ()


class Attending(BaseTrigger):
    """Fires if a threshold is below the attention of a separate forward pass."""

    def __init__(self, threshold=0.0):
        self.threshold = threshold

    def with_threshold(self, value):
        return Attending(value)

    def judge(self, view):
        from langgraph_dynrag.drafts.draft import Verdict

        alone = view.attend_alone("text", [1, 2])
        return Verdict(float(alone.weights.max()) > self.threshold, "", (1.0,))


def test_a_separate_forward_pass_is_computed_once():
    passes = []

    def attend(text, token_ids):
        passes.append((text, token_ids))
        return AloneAttention(("a",), np.ones((1, 1, 1)))

    recorder = Recorder(Attending())
    recorder.judge(view(0.9, attend_alone=attend))
    [piece] = recorder.taken()
    assert [piece.fires(t) for t in (0.5, 2.0, 0.1)] == [True, False, True]
    assert passes == [("text", (1, 2))]


def test_an_answer_that_a_trigger_gives_up_is_recorded_and_written_all_the_same():
    constant = LearnedModel("logistic", ("names",), (0.0,), (1.0,), 0.0, weights=(0.0,))  # p is 0.5
    trigger = LearnedTrigger(constant, 0.5, abstain=0.5)
    judged = view(0.9, passages=[{"title": "Bridge", "text": "It is old."}])
    assert trigger.judge(judged).answer == "I do not know."
    recorder = Recorder(trigger)
    assert recorder.judge(judged).answer is None
    assert len(recorder.taken()) == 1


class Graph:
    """A graph that searches once and judges one sentence."""

    def __init__(self, recorder=None):
        self.recorder = recorder

    def invoke(self, given):
        if self.recorder is not None:
            self.recorder.judge(view(0.4))
        trace = [{"type": "question", "question": given["question"]}, {"type": "retrieval", "query": "q"}]
        return {"short_answer": given["question"].upper(), "trace": trace}


def test_drafts_have_their_answer_their_searches_and_their_own_judgements():
    recorder = Recorder(TokenProbability(0.5))
    recorder.judge(view(0.9))  # from an earlier run
    questions = [CalibrationQuestion("one"), CalibrationQuestion("two")]
    drafted = write_drafts(Graph(recorder), recorder, questions)
    assert [(d.asked.question, d.answer, d.searches, len(d.judgements)) for d in drafted] == [
        ("one", "ONE", 1, 1),
        ("two", "TWO", 1, 1),
    ]
    assert answered(Graph(), questions[0]) == ("ONE", 1)
