"""Self-RAG's arithmetic: scores, segments, beam, and classification, against hand computations and NumPy."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.draft import Draft, DraftView
from langgraph_dynrag.reflection import Beam, Critique, Decision, Hypothesis, SegmentScore, SegmentSelection, Weights
from langgraph_dynrag.reflection.beam import SegmentCandidate, best_hypotheses
from langgraph_dynrag.reflection.classification import masses, shares, surface_forms
from langgraph_dynrag.reflection.scores import likeliest, likelihood, normalised, score, utility
from langgraph_dynrag.reflection.segments import cut, spaced
from langgraph_dynrag.reflection.vocabulary import ReflectionVocabulary
from langgraph_dynrag.triggers import Reflection
from langgraph_dynrag.triggers.reflection import wanted
from rag_backbone.engine.signals import TokenStep
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.reflective import segment

# ---------------------------------------------------------------------------------------------------- scores


def test_a_score_matches_a_hand_computation():
    critique = Critique(
        relevance={"relevant": 0.8, "irrelevant": 0.2},
        support={"full": 0.5, "partial": 0.3, "none": 0.2},
        utility={"1": 0.1, "2": 0.1, "3": 0.2, "4": 0.2, "5": 0.4},
    )
    found = score([math.log(0.5), math.log(0.125)], critique, Weights())
    assert found.likelihood == pytest.approx(0.25)  # the square root of 0.5 x 0.125
    assert found.relevance == pytest.approx(0.8)
    assert found.support == pytest.approx(0.65)  # 0.5 + 0.3 / 2
    assert found.utility == pytest.approx(0.35)  # -0.1 - 0.05 + 0.1 + 0.4
    assert found.total == pytest.approx(0.25 + 0.8 + 0.65 + 0.5 * 0.35)
    assert score([], critique, Weights(2, 0, 1)).total == pytest.approx(1.6 + 0.35)


def test_a_missing_judgement_counts_as_zero_and_a_poor_utility_is_negative():
    assert score([0.0], Critique(), Weights()) == SegmentScore(1.0, 0.0, 0.0, 0.0, 1.0)
    assert utility({"1": 1.0}) == -1
    assert score([0.0], Critique(utility={"1": 0.5, "3": 0.5}), Weights()).total == pytest.approx(1 - 0.25)


_LOGITS = st.floats(-60, 0)


@given(
    st.lists(_LOGITS, min_size=1, max_size=9),
    st.lists(_LOGITS, min_size=2, max_size=2),
    st.lists(_LOGITS, min_size=3, max_size=3),
    st.lists(_LOGITS, min_size=5, max_size=5),
    st.lists(st.floats(0, 5), min_size=3, max_size=3),
)
def test_scores_match_numpy(tokens, rel, sup, use, weights):
    e_rel, e_sup, e_use = (np.exp(np.array(x, np.longdouble)) for x in (rel, sup, use))
    expected = (
        np.exp(np.mean(np.array(tokens, np.longdouble)))
        + weights[0] * e_rel[0] / e_rel.sum()
        + weights[1] * (e_sup @ [1, 0.5, 0]) / e_sup.sum()
        + weights[2] * (e_use @ np.array([-1, -0.5, 0, 0.5, 1])) / e_use.sum()
    )
    critique = Critique(
        normalised(dict(zip(("relevant", "irrelevant"), rel, strict=True))),
        normalised(dict(zip(("full", "partial", "none"), sup, strict=True))),
        normalised(dict(zip("12345", use, strict=True))),
    )
    assert score(tokens, critique, Weights(*weights)).total == pytest.approx(float(expected), abs=1e-9)


def test_the_decision_uses_a_ratio_of_probabilities_not_of_logarithms():
    for yes, no in ((0.9, 0.1), (0.1, 0.9), (0.02, 0.9)):
        assert wanted({"yes": yes, "no": no, "continue": 0.5}) == pytest.approx(yes / (yes + no))
    assert wanted({"yes": 0.0, "no": 0.0}) == 0.0


def test_answers_that_cannot_occur_are_equally_likely():
    assert normalised({"yes": -math.inf, "no": -math.inf}) == {"yes": 0.5, "no": 0.5}
    assert likelihood([]) == 0.0
    assert likeliest({"a": 0.2, "b": 0.4, "c": 0.4}) == "b"


def asked(**probabilities):
    return DraftView("Q?", "", Draft(), 0, retrieval=probabilities or None)


def test_the_trigger_compares_the_ratio_with_its_threshold():
    assert Reflection(0.2).judge(asked(yes=0.3, no=0.7)).retrieve
    quiet = Reflection(0.2).judge(asked(yes=0.2, no=0.8))
    assert not quiet.retrieve
    assert (quiet.score, quiet.threshold, quiet.position) == (0.2, 0.2, None)
    assert quiet.reason == "retrieval wanted 0.200 <= 0.2"
    # `continue` is not part of the ratio. If it is the likeliest answer, the current passage is kept.
    assert Reflection(0.2).judge(asked(**{"yes": 0.2, "no": 0.5, "continue": 0.3})).retrieve
    assert Reflection(0.5).judge(asked(**{"yes": 0.4, "no": 0.2, "continue": 0.4})).score == pytest.approx(2 / 3)
    assert Reflection(0.5).judge(asked(**{"yes": 0.4, "no": 0.2, "continue": 0.4})).retrieve
    serves = Reflection(0.5).judge(asked(**{"yes": 0.1, "no": 0.0, "continue": 0.9}))
    assert (serves.retrieve, serves.score) == (False, 1.0)
    assert serves.reason == "the current passage suffices, 0.900"
    assert not Reflection(None).judge(asked(yes=0.4, no=0.6)).retrieve
    assert Reflection(None).judge(asked(**{"yes": 0.4, "no": 0.3, "continue": 0.3})).retrieve
    assert Reflection(mode="always").judge(asked()).retrieve
    assert not Reflection(mode="never").judge(asked(yes=1.0, no=0.0)).retrieve
    assert not Reflection().judge(asked()).retrieve


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reflection(1.5), "delta is 1.5; a probability"),
        (lambda: Reflection(mode="sometimes"), "'sometimes'; known: .*'adaptive'"),
        (lambda: Weights(support=-1), "the weight of support is -1"),
        (lambda: Weights(utility=math.nan), "the weight of utility is nan"),
        (lambda: SegmentSelection(beam=0), "beam is 0; at least 1"),
        (lambda: SegmentSelection(depth=0), "depth is 0; at least 1"),
        (lambda: SegmentSelection(path="token"), "'token'; known: .*'classification'"),
        (lambda: SegmentSelection(unsupported="hide"), "'hide'; known: .*'drop'"),
    ],
)
def test_values_out_of_range_are_named(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


# ---------------------------------------------------------------------------------------------------- segments

VOCABULARY = ReflectionVocabulary(
    {"yes": 100, "no": 101, "continue": 102},
    {"relevant": 103, "irrelevant": 104},
    {"full": 105, "partial": 106, "none": 107},
    {name: 107 + int(name) for name in "12345"},
    {"open": 113, "close": 114},
)


def wrote(*tokens, judged=()):
    """Return steps for pairs of (id, text); `judged` maps a position to {id: probability}."""
    judged = dict(judged)
    steps = []
    for t, (token, text) in enumerate(tokens):
        given = judged.get(t, {})
        reported = tuple(math.log(given.get(i, 1e-9)) for i in VOCABULARY.judged)
        steps.append(TokenStep(t, token, text, math.log(0.5), 0.25, token_logprobs=reported))
    return steps


TOKENS = [(103, ""), (1, "Wray"), (2, " built"), (105, ""), (110, ""), (107, ""), (100, ""), (3, "He")]
JUDGED = {
    0: {103: 0.6, 104: 0.2},
    1: {103: 0.1, 104: 0.9},
    3: {105: 0.5, 106: 0.25, 107: 0.25},
    4: {110: 0.4, 112: 0.4},
    5: {107: 1.0},
}


def test_a_segment_ends_at_the_next_retrieval_token_and_is_judged_at_its_reflection_tokens():
    part = cut(wrote(*TOKENS, judged=JUDGED), VOCABULARY, "end", fresh=True, evidence=True)
    assert part.draft.text == "Wray built"
    assert part.draft.token_ids == (1, 2)
    assert part.draft.logprobs == (math.log(0.5),) * 2
    assert part.draft.entropies == (0.25, 0.25)
    assert part.draft.ended == "unit"
    assert part.token_ids == (103, 1, 2, 105, 110, 107)
    assert part.critique.relevance == pytest.approx({"relevant": 0.75, "irrelevant": 0.25})
    assert part.critique.support == pytest.approx({"full": 0.5, "partial": 0.25, "none": 0.25})  # the first occurrence
    assert part.critique.utility["3"] == pytest.approx(0.5, abs=1e-6)


def test_relevance_is_read_at_the_first_position_whatever_token_is_there():
    steps = wrote((1, "Wray"), (103, ""), judged={0: {103: 0.2, 104: 0.6}, 1: {103: 1.0}})
    part = cut(steps, VOCABULARY, "end", fresh=True, evidence=True)
    assert part.critique.relevance == pytest.approx({"relevant": 0.25, "irrelevant": 0.75})
    assert (part.critique.support, part.critique.utility) == (None, None)
    assert part.draft.ended == "end"


def test_without_a_passage_there_is_no_relevance_and_no_support():
    steps = wrote(*TOKENS, judged=JUDGED)
    assert cut(steps, VOCABULARY, "end", fresh=False, evidence=False).critique.support is None
    kept = cut(steps, VOCABULARY, "end", fresh=False, evidence=True).critique
    assert kept.relevance is None
    assert kept.support is not None


def test_the_limit_counts_visible_tokens_and_leaves_room_for_judgements():
    steps = wrote((103, ""), (1, "Wray"), (2, " built"), (105, ""), (3, " it"), (110, ""), judged=JUDGED)
    part = cut(steps, VOCABULARY, "end", fresh=True, evidence=True, limit=2)
    assert (part.draft.text, part.draft.ended, part.token_ids) == ("Wray built", "limit", (103, 1, 2, 105))
    assert part.critique.support is not None
    assert part.critique.utility is None
    assert cut(steps, VOCABULARY, "end", fresh=True, evidence=True, limit=3).draft.ended == "end"


def test_empty_output_gives_an_empty_segment():
    for steps in ([], wrote((100, ""), (1, "Wray"))):
        part = cut(steps, VOCABULARY, "end", fresh=True, evidence=True)
        assert (part.draft.text, part.token_ids) == ("", ())


def test_segments_do_not_run_together():
    draft = Draft(("", "He", " was"), (0.0,) * 3)
    assert spaced("Wray built it.", draft).pieces == ("", " He", " was")
    assert spaced("", draft) == spaced("It. ", draft) == draft
    assert spaced("It.", Draft((" He",), (0.0,))).text == " He"


# ---------------------------------------------------------------------------------------------------- beam


def test_the_beam_matches_a_hand_computation():
    """Two of four hypotheses are kept; one that has ended competes by its mean."""
    first = Beam(
        candidates=tuple(
            SegmentCandidate(0, segment(t, s, ended=e))
            for t, s, e in [("a", 1.0, False), ("b", 2.0, True), ("c", 1.5, False), ("d", 0.5, False)]
        )
    )
    beam = first.advanced(2, "keep")
    assert [h.text for h in beam.hypotheses] == ["b", "c"]
    assert [h.ended for h in beam.hypotheses] == [True, False]
    assert beam.undecided == (1,)
    beam = Beam(
        beam.hypotheses, candidates=(SegmentCandidate(1, segment("x", 3.0)), SegmentCandidate(1, segment("y", 2.4)))
    )
    beam = beam.advanced(2, "keep")
    # (1.5 + 3) / 2 = 2.25; (1.5 + 2.4) / 2 = 1.95; b stays at 2.
    assert [(h.text, h.score) for h in beam.hypotheses] == [("cx", 2.25), ("b", 2.0)]


def test_the_same_text_from_two_passages_is_one_hypothesis():
    candidates = [SegmentCandidate(0, segment(t, s)) for t, s in (("a b", 1.0), ("a  b", 2.0), ("c", 0.1))]
    beam = Beam(candidates=tuple(candidates)).advanced(2, "keep")
    assert [(h.text, h.score) for h in beam.hypotheses] == [("a  b", 2.0), ("c", 0.1)]


def test_unsupported_candidates_are_dropped_while_there_are_others():
    none, full = {"full": 0.1, "partial": 0.2, "none": 0.7}, {"full": 0.7, "partial": 0.2, "none": 0.1}
    wrong, right = (
        SegmentCandidate(0, segment("w", 3.0, support=none)),
        SegmentCandidate(0, segment("r", 1.0, support=full)),
    )
    both = Beam(candidates=(wrong, right))
    assert [h.text for h in both.advanced(2, "drop").hypotheses] == ["r"]
    assert [h.text for h in both.advanced(2, "keep").hypotheses] == ["w", "r"]
    assert [h.text for h in Beam(candidates=(wrong,)).advanced(2, "drop").hypotheses] == ["w"]


def test_segments_shared_by_all_hypotheses_are_certain():
    a, b, c = segment("a", 1.0), segment("b", 1.0), segment("c", 1.0)
    beam = Beam((Hypothesis((a, b, c)), Hypothesis((a, b)), Hypothesis((a, b, b))))
    assert beam.certain == (a, b)
    assert Beam((Hypothesis((a,)), Hypothesis((b,)))).certain == ()
    assert Beam((Hypothesis((a, b)),)).certain == (a, b)


def test_limits_stop_hypotheses_and_are_named():
    beam = Beam((Hypothesis((segment("abc", 1.0),)), Hypothesis((segment("a", 1.0),) * 2), Hypothesis()))
    stopped = beam.limited(3, 2)
    assert [h.stopped for h in stopped.hypotheses] == ["tokens", "segments", None]
    assert stopped.undecided == (2,)


def test_the_earlier_of_equal_hypotheses_is_kept():
    equal = [Hypothesis((segment(t, 1.0),)) for t in "abc"]
    assert best_hypotheses(equal, 2) == tuple(equal[:2])


def test_a_beam_survives_a_round_trip_through_plain_data():
    decision = Decision(True, False, "wanted", 0.5, 0.2, {"yes": 0.5, "no": 0.5}, "Who?")
    supported = segment("a", 1.0, support={"full": 1.0, "partial": 0.0, "none": 0.0})
    beam = Beam(
        (Hypothesis((supported,), decision), Hypothesis((segment("b", 2.0, ended=True),), stopped="tokens")),
        judgements=({"yes": 0.1, "no": 0.9}, None),
        candidates=(SegmentCandidate(0, segment("c", 0.5)),),
        accepted=1,
    )
    assert Beam.from_state(json.loads(json.dumps(beam.to_state()))) == beam
    assert Beam.from_state(None) == Beam()


# ---------------------------------------------------------------------------------------------------- classification


def language(seed, tokens=5, length=4):
    """Build a random language model over a few tokens: the distribution after each sequence."""
    rng = np.random.default_rng(seed)
    return {
        begun: np.log(rng.dirichlet(np.ones(tokens)))
        for n in range(length)
        for begun in itertools.product(range(tokens), repeat=n)
    }


def from_all_texts(model, options, length=4, tokens=5):
    """Sum the probability of every text that starts with a form of the option and no longer form of another one."""
    found = dict.fromkeys(options, 0.0)
    forms = [(form, name) for name, all_forms in options.items() for form in all_forms]
    for text in itertools.product(range(tokens), repeat=length):
        probability = math.exp(sum(model[text[:t]][text[t]] for t in range(length)))
        fitting = []
        for form, name in forms:
            others = [f for f, other in forms if other != name]
            # Only as many positions as are needed to tell the form from all other options.
            parts = next((n for n in range(1, len(form)) if not any(f[:n] == form[:n] for f in others)), len(form))
            if text[:parts] == form[:parts]:
                fitting.append((parts, name))
        if fitting:
            found[max(fitting)[1]] += probability
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"yes": [(0,), (1,)], "no": [(2,), (3,)]},
        {"yes": [(4, 0)], "no": [(4, 1)]},  # a shared first token: the second position decides
        {"a": [(0, 1, 2)], "b": [(0, 1, 3)], "c": [(0, 2)], "d": [(1,)]},
        {"one": [(1,)], "ten": [(1, 0)]},  # a prefix of another option
        {"full": [(0, 1), (2,)], "partial": [(0, 2), (3, 3)], "none": [(0,), (3, 2)]},
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_masses_match_the_sum_over_all_texts(options, seed):
    model = language(seed)
    asked_for = []

    def next_logprobs(begun, tokens):
        asked_for.append(begun)
        return [model[begun][t] for t in tokens]

    expected = from_all_texts(model, options)
    found = masses(options, next_logprobs)
    assert found == pytest.approx(expected, abs=1e-9)
    total = sum(expected.values())
    assert shares(options, next_logprobs) == pytest.approx({k: v / total for k, v in expected.items()}, abs=1e-9)


def test_options_with_distinct_first_tokens_need_one_position():
    asked_for = []

    def next_logprobs(begun, tokens):
        asked_for.append((begun, tuple(tokens)))
        return [math.log(0.25)] * len(tokens)

    options = {"yes": [(5, 6, 7), (8,)], "no": [(9, 6, 7)]}
    assert masses(options, next_logprobs) == {"yes": 0.5, "no": 0.25}
    assert asked_for == [((), (5, 8, 9))]


def test_options_with_the_same_tokens_are_rejected():
    with pytest.raises(ConfigurationError, match=r"'no' and 'yes' have the same tokens \[3\]"):
        masses({"yes": [(3,)], "no": [(3,)]}, lambda *_: [0.0])
    with pytest.raises(ConfigurationError, match="without tokens"):
        masses({"yes": [()], "no": [(3,)]}, lambda *_: [0.0])


def test_options_that_cannot_occur_are_equally_likely():
    assert shares({"yes": [(1,)], "no": [(2,)]}, lambda _, tokens: [-math.inf] * len(tokens)) == {"yes": 0.5, "no": 0.5}


def test_surface_forms_of_a_word():
    assert surface_forms("Yes") == ("Yes", " Yes", "yes", " yes", "YES", " YES")
    assert surface_forms("5") == ("5", " 5")
