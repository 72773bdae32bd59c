"""The beam over segments, against hand computations."""

import json

from langgraph_dynrag.reflection.beam import Beam, Decision, Hypothesis, SegmentCandidate, best_hypotheses
from tests.langgraph_dynrag.reflective import segment


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
