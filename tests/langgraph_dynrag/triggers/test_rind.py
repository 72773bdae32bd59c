"""RIND against an independent implementation of its formulas (DRAGIN, section 3.1)."""

import numpy as np
import pytest

from langgraph_dynrag.drafts.draft import AloneAttention, DraftView
from langgraph_dynrag.triggers import RIND
from langgraph_dynrag.triggers.rind import later_attention
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import causal_attention, random_draft, view_of

PIECES = [" The", " film", " was", " dir", "ected", " by", " Pál", " Gá", "bor", "."]
# s_i of equation 5, by hand: 0 for stop words and for punctuation.
MEANS_SOMETHING = [0, 1, 0, 1, 1, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_paper_bundle_multiplies_entropy_later_attention_and_content(seed):
    rng = np.random.default_rng(seed)
    draft = random_draft(rng, PIECES)
    full = causal_attention(rng, heads=3, length=4 + 2 + 2 + 1 + len(PIECES))
    view = view_of(draft, full, [" Who", " directed"], [" So"])
    start = 9
    expected = []
    for i in range(len(PIECES)):
        per_head = []
        for h in range(3):
            later = [full[h, start + j, start + i] for j in range(i + 1, len(PIECES))]
            per_head.append(max(later, default=0.0))
        expected.append(draft.entropies[i] * sum(per_head) / 3)
    verdict = RIND(0.5).judge(view)
    for score, value, s in zip(verdict.scores, expected, MEANS_SOMETHING, strict=True):
        assert (score is None) == (s == 0)
        if s:
            assert score == pytest.approx(value, rel=1e-5)
    scored = [v if s else -1 for v, s in zip(expected, MEANS_SOMETHING, strict=True)]
    above = [i for i, v in enumerate(scored) if v > 0.5]
    assert verdict.retrieve == bool(above)
    assert list(verdict.hits) == above
    assert verdict.position == (above[0] if above else None)


def test_later_attention_matches_a_worked_example():
    # One head, three tokens: token 0 is attended by 1 (0.25) and 2 (0.5), token 1 by 2 (0.125), token 2 by no token.
    weights = np.array([[[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0.125, 0.375]]], np.float32)
    assert later_attention(weights).tolist() == [0.5, 0.125, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_reference_bundle_is_normalised_per_sentence_and_includes_the_diagonal(seed):
    rng = np.random.default_rng(seed)
    pieces = [*PIECES, " He", " died", " in", " 19", "71", "."]
    draft = random_draft(rng, pieces)
    alone = causal_attention(rng, heads=2, length=len(pieces))
    view = DraftView("q", "", draft, len(pieces), attend_alone=lambda text, ids: AloneAttention(tuple(pieces), alone))
    words = [[0], [1], [2], [3, 4], [5], [6], [7, 8, 9], [10], [11], [12], [13, 14, 15]]
    a = [sum(np.mean([max(alone[h, :, t]) for h in range(2)]) for t in w) for w in words]
    h = [np.mean([draft.entropies[t] for t in w]) for w in words]
    expected = {}
    for members in (range(7), range(7, 11)):
        total = sum(a[w] for w in members)
        for w in members:
            for t in words[w]:
                expected[t] = len(members) * a[w] / total * h[w]
    scores = RIND(1.0, "reference").judge(view).scores
    assert scores == pytest.approx([expected[t] for t in range(len(pieces))], rel=1e-5)


def test_thresholds_and_bundles_are_checked():
    with pytest.raises(ConfigurationError, match="-1"):
        RIND(-1)
    with pytest.raises(ConfigurationError, match="'paper', 'reference'"):
        RIND(1.0, "papers")


def test_each_bundle_names_its_signals_and_unit():
    assert RIND(1.0).needs == {"entropy", "attention"}
    assert str(RIND(1.0).unit) == "sentence"
    assert RIND(1.0, "reference").needs == {"entropy", "attention_alone"}
    assert str(RIND(1.0, "reference").unit) == "all"
