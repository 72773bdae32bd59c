"""ETC against an independent implementation of its formulas."""

import numpy as np
import pytest

from langgraph_dynrag.drafts.draft import AloneAttention, Draft, DraftView
from langgraph_dynrag.triggers import ETC
from langgraph_dynrag.triggers.etc import smoothed_second_difference
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import causal_attention, random_draft

CONTENT = [" opera", " Rusalka", " composer", " died", " Prague", " bridge", " river", " engineer", " letter"]


def test_second_difference_matches_a_worked_example():
    # H = 1, 2, 4, 3: dH = 1, 2, -1; d2 = 1, -3. E = -1; |d2_1 - E| = 2, |d2_0 - E| = 2: both weights are one half.
    assert smoothed_second_difference([1, 2, 4, 3]) == [None, None, None, pytest.approx(0.5 * -3 + 0.5 * 1)]
    # One more, H = 3: dH = 0, d2 = 1; E = -1/3; |1 + 1/3| = 4/3, |-3 + 1/3| = 8/3: w = 2/3.
    assert smoothed_second_difference([1, 2, 4, 3, 3])[4] == pytest.approx(2 / 3 * 1 + 1 / 3 * -3)


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_too_few_words_give_no_score(length):
    assert smoothed_second_difference([1.0] * length) == [None] * length


@pytest.mark.parametrize("seed", range(6))
def test_paper_bundle_scores_content_tokens_by_the_absolute_smoothed_difference(seed):
    rng = np.random.default_rng(seed)
    pieces = [piece for word in CONTENT for piece in (word, " the")]
    draft = random_draft(rng, pieces)
    view = DraftView("q", "", draft, len(draft))
    H = [draft.entropies[t] for t in range(0, len(pieces), 2)]
    d = [H[t + 1] - H[t] for t in range(len(H) - 1)]
    d2 = [d[t + 1] - d[t] for t in range(len(d) - 1)]
    expected = {}
    for t in range(1, len(d2)):
        E = sum(d2[: t + 1]) / (t + 1)
        w = abs(d2[t - 1] - E) / (abs(d2[t] - E) + abs(d2[t - 1] - E))
        expected[2 * (t + 2)] = abs(w * d2[t] + (1 - w) * d2[t - 1])
    verdict = ETC(1.0).judge(view)
    for t, score in enumerate(verdict.scores):
        assert score == (pytest.approx(expected[t]) if t in expected else None)
    assert list(verdict.hits) == [t for t, v in sorted(expected.items()) if v >= 1.0]


def test_the_trend_continues_from_the_accepted_text():
    rng = np.random.default_rng(3)
    whole = random_draft(rng, CONTENT)
    scores = ETC(1.0).judge(DraftView("q", "", whole, len(whole))).scores
    later = DraftView("q", "", whole[4:], len(whole) - 4, history=whole.entropies[:4])
    assert ETC(1.0).judge(later).scores == pytest.approx(scores[4:])


def test_a_score_at_the_threshold_fires():
    draft = Draft(tuple(CONTENT[:4]), (0.0,) * 4, (1.0, 2.0, 4.0, 3.0), None)
    view = DraftView("q", "", draft, 4)
    assert ETC(1.0).judge(view).retrieve
    assert not ETC(1.0 + 1e-9).judge(view).retrieve


@pytest.mark.parametrize("seed", range(6))
def test_reference_bundle_weighs_by_attention_paid_and_keeps_the_sign(seed):
    rng = np.random.default_rng(seed)
    pieces = [" The", " opera", " Rus", "alka", " was", " composed", " near", " Prague", " bridge", "."]
    draft = random_draft(rng, pieces)
    alone = causal_attention(rng, heads=2, length=len(pieces))
    view = DraftView("q", "", draft, len(pieces), attend_alone=lambda text, ids: AloneAttention(tuple(pieces), alone))
    words = [[0], [1], [2, 3], [4], [5], [6], [7], [8]]
    content = [1, 2, 4, 5, 6, 7]
    paid = [sum(np.mean([max(alone[h, t, :]) for h in range(2)]) for t in w) for w in words]
    H = [max(draft.entropies[t] for t in words[w]) for w in content]
    d2 = [H[t + 2] - 2 * H[t + 1] + H[t] for t in range(len(H) - 2)]
    expected = {}
    before = 0.0
    for t, now in enumerate(d2):
        E = sum(d2[: t + 1]) / (t + 1)
        total = abs(now - E) + abs(before - E)
        factor = 0.9 + 0.1 * (abs(before - E) / total if total else 0.5)
        w = content[t + 2]
        weight = len(words) * paid[w] / sum(paid)
        for token in words[w]:
            expected[token] = weight * (factor * now + (1 - factor) * before)
        before = now
    verdict = ETC(0.5, "reference").judge(view)
    for t, score in enumerate(verdict.scores):
        assert score == (pytest.approx(expected[t], rel=1e-5) if t in expected else None)
    assert list(verdict.hits) == [t for t, v in sorted(expected.items()) if v > 0.5]


def test_settings_are_checked():
    with pytest.raises(ConfigurationError, match="ETC"):
        ETC(-0.5)
    with pytest.raises(ConfigurationError, match="inf"):
        ETC(float("inf"))
    assert ETC(0.0).needs == {"entropy"}
    assert ETC(1.3, "reference").needs == {"entropy", "attention_alone"}
