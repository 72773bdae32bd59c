"""A complete answer is judged piece by piece, with the verdicts worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from langgraph_dynrag.agents.judged_answer import WatchedAnswer, judge_answer, lacking, read_answer
from langgraph_dynrag.drafts.draft import Draft, Verdict
from langgraph_dynrag.drafts.tasks import DraftResult
from langgraph_dynrag.triggers import Entropy, EveryNTokens, EverySentence, LearnedTrigger, Never, TokenProbability
from langgraph_dynrag.triggers.base import BaseTrigger
from langgraph_dynrag.triggers.learned_model import LearnedModel
from rag_backbone.text.units import not_a_stop_word
from tests.langgraph_dynrag.scripted import said

CARRIES = not_a_stop_word()
LOGPROB, BOTH = frozenset({"logprob"}), frozenset({"logprob", "entropy"})


def draft_of(tokens, entropies=None):
    pieces, probabilities = zip(*tokens, strict=True)
    return Draft(pieces, tuple(math.log(p) for p in probabilities), entropies, None, "end")


TWO = draft_of(said("It was Joan. Then Pike left.", Joan=0.2, Pike=0.6, left=0.3))


def judged(trigger, draft=TWO):
    return judge_answer(WatchedAnswer("Who?", draft), trigger, CARRIES)


def test_each_sentence_is_judged_and_the_verdict_stands_at_the_first_need():
    needs, whole = judged(TokenProbability(0.5))
    assert [n.view.unit.text for n in needs] == ["It was Joan.", " Then Pike left."]
    assert [n.view.accepted for n in needs] == ["", "It was Joan."]
    assert [n.verdict.position for n in needs] == [2, 2]
    assert (whole.retrieve, whole.position, whole.hits) == (True, 2, (2, 6))
    assert whole.scores == pytest.approx([0.95, 0.95, 0.2, 0.95, 0.95, 0.6, 0.3, 0.95])
    assert whole.reason.endswith(", and at 1 more")
    assert whole.score == pytest.approx(0.2)


def test_a_learned_trigger_reads_what_the_index_knows_of_new_names():
    rare = LearnedModel("logistic", ("rarest_new_name",), (0.0,), (1.0,), 0.0, weights=(1.0,))
    _, whole = judge_answer(WatchedAnswer("Who?", TWO), LearnedTrigger(rare, 0.7), CARRIES, {"Joan": 0, "Pike": 3}.get)
    assert whole.retrieve
    assert whole.score == pytest.approx(0.8)  # ln 4 is the log-odds of 4 to 1


def test_a_need_in_a_later_sentence_is_positioned_in_the_whole_answer():
    needs, whole = judged(TokenProbability(0.5), draft_of(said("It was Joan. Then Pike left.", Pike=0.4)))
    assert len(needs) == 1
    assert (whole.position, whole.hits) == (5, (5,))
    assert "more" not in whole.reason


def test_an_answer_without_needs_has_no_position():
    needs, whole = judged(TokenProbability(0.1))
    assert needs == []
    assert (whole.retrieve, whole.position, whole.hits) == (False, None, ())
    assert judged(Never())[1].scores == ()


def test_a_verdict_without_a_position_refers_to_the_end_of_its_piece():
    needs, whole = judged(EverySentence())
    assert len(needs) == 2
    assert whole.position == 3


def test_an_empty_answer_needs_nothing():
    assert judged(TokenProbability(1.0), Draft()) == ([], Verdict(False, "nothing was written"))


class Histories(BaseTrigger):
    """Records the entropies of the text before each piece."""

    def __init__(self):
        self.seen = []

    def judge(self, view):
        self.seen.append(view.history)
        return Verdict(False, "seen")


def test_entropies_of_content_words_before_a_piece_are_its_history():
    trigger = Histories()
    judged(trigger, draft_of(said("It was Joan. Then Pike left."), tuple(float(i) for i in range(8))))
    assert trigger.seen == [(), (2.0,)]  # "it" and "was" are stop words


@given(st.integers(1, 9), st.integers(0, 20))
def test_pieces_cover_the_answer_without_gaps(size, length):
    draft = Draft(tuple(f" {i}" for i in range(length)), (-0.1,) * length, ended="end")
    needs, _ = judged(EveryNTokens(size), draft)
    assert len(needs) in (length // size, -(-length // size))
    assert all(n.view.accepted + n.view.draft.text == draft.text for n in needs)


def entries(tokens):
    return {"logprobs": {"content": [{"token": t, "bytes": None, "logprob": math.log(p)} for t, p in tokens]}}


def test_the_draft_of_a_message_has_its_tokens_and_their_probabilities():
    message = AIMessage("It was Joan.", response_metadata=entries(said("It was Joan.", Joan=0.2)))
    read = read_answer(message, [HumanMessage("Who?")], TokenProbability(), LOGPROB)
    assert read.draft.text == "It was Joan."
    assert math.exp(read.draft.logprobs[2]) == pytest.approx(0.2)
    assert lacking(read, LOGPROB) == []
    assert lacking(read, BOTH) == ["entropy"]


def test_a_message_without_log_probabilities_lacks_them():
    read = read_answer(AIMessage("It was Joan."), [HumanMessage("Who?")], Entropy(1.0), BOTH)
    assert read.draft.text == "It was Joan."
    assert lacking(read, BOTH) == ["entropy", "logprob"]
    assert lacking(read, frozenset()) == []
    assert lacking(DraftResult(TWO), frozenset({"attention"})) == ["attention"]
