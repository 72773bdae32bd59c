"""QFS against an independent implementation of its formulas (DRAGIN, section 3.2)."""

import numpy as np
import pytest

from langgraph_dynrag.drafts.draft import AloneAttention, DraftView, Verdict
from langgraph_dynrag.queries import QFS
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.recorded import causal_attention, random_draft, view_of

QUESTION = ["Who", " direct", "ed", " the", " film", " Rus", "alka", "?"]
ANSWER = [" Rus", "alka", " is", " an", " opera", "."]
DRAFT = [" The", " film", " was", " made", " by", " Pál", " Gábor", "."]


def fired(position: int, hits: tuple[int, ...] = ()) -> Verdict:
    return Verdict(True, "test", position=position, hits=hits or (position,), trigger="RIND")


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [1, 3, 50])
def test_paper_bundle_takes_the_words_that_the_triggering_token_attends_to_most(seed, n):
    rng = np.random.default_rng(seed)
    padding = 4
    start = padding + len(QUESTION) + 2 + len(ANSWER)
    full = causal_attention(rng, heads=3, length=start + len(DRAFT))
    view = view_of(random_draft(rng, DRAFT), full, QUESTION, ANSWER, padding)
    position = 5  # " Pál"
    row = full[:, start + position, :].mean(0)
    q, a, d = padding, start - len(ANSWER), start
    # Content words before " Pál", by hand, with the positions of their tokens.
    words = {
        "directed": [[q + 1, q + 2]],
        "film": [[q + 4], [d + 1]],
        "Rusalka": [[q + 5, q + 6], [a, a + 1]],
        "opera": [[a + 4]],
        "made": [[d + 3]],
    }
    best = {}
    for word, places in words.items():
        sums = [(row[place].sum(), place[0]) for place in places]
        best[word] = max(sums)
    top = sorted(best, key=lambda w: -best[w][0])[:n]
    expected = " ".join(sorted(top, key=lambda w: best[w][1]))
    assert QFS(n).plan(view, fired(position)).queries == (expected,)


def test_paper_bundle_leaves_out_the_unfinished_word():
    rng = np.random.default_rng(0)
    draft = random_draft(rng, [" The", " film", " was", " direc", "ted", "."])
    start = 4 + 2 + 2 + 0
    full = causal_attention(rng, heads=1, length=start + 6)
    view = view_of(draft, full, [" Which", " year"], [])
    query = QFS(50).plan(view, fired(4)).queries[0]
    assert query.split() == ["year", "film"]


@pytest.mark.parametrize("seed", range(8))
def test_reference_bundle_averages_the_predicting_rows_of_the_hit_words(seed):
    rng = np.random.default_rng(seed)
    question, accepted = "Who directed Rusalka?", " Rusalka is old."
    draft_pieces = [" It", " starred", " Pál", " Gá", "bor", "."]
    draft = random_draft(rng, draft_pieces)
    text = question + " " + accepted + "".join(draft_pieces)
    tokens = ["Who", " direct", "ed", " Rus", "alka", "?", " ", " Rusalka", " is", " old", ".", *draft_pieces]
    assert "".join(tokens) == text
    alone = causal_attention(rng, heads=2, length=len(tokens))
    asked = []

    def attend(of, ids):
        asked.append(of)
        return AloneAttention(tuple(tokens), alone)

    view = DraftView(question, accepted, draft, len(draft), attend_alone=attend)
    hits = (2, 3)  # " Pál" and the first piece of " Gábor"
    mean = alone.mean(0)
    first = {"Pál": [13], "Gábor": [14, 15]}
    weights = {}
    for places in first.values():
        r0 = places[0]
        rows = [mean[i - 1, :r0] / mean[i - 1, :r0].sum() for i in places]
        row = sum(rows) / len(rows)
        words = {"Who": [0], "directed": [1, 2], "Rusalka": [3, 4], "Rusalka2": [7], "old": [9], "starred": [12]}
        for word, columns in words.items():
            weights[word] = weights.get(word, 0) + sum(row[c] for c in columns if c < r0) / len(first)
    weights["Rusalka"] = max(weights["Rusalka"], weights.pop("Rusalka2"))
    weights.pop("Who")  # a stop word
    top = sorted(weights, key=lambda w: -weights[w])[:2]
    order = ["directed", "Rusalka", "old", "starred"]
    found = QFS(2, "reference").plan(view, fired(2, hits)).queries[0].split()
    assert set(found) == set(top)
    if "Rusalka" not in found:  # the repeated word may appear at either position
        assert found == [w for w in order if w in top]
    assert asked == [text]


def test_a_trigger_that_points_to_no_token_is_refused():
    with pytest.raises(ConfigurationError, match="every sentence"):
        QFS().plan(
            DraftView("q", "", random_draft(np.random.default_rng(0), DRAFT), 8),
            Verdict(True, "", trigger="every sentence"),
        )


def test_settings_are_checked():
    with pytest.raises(ConfigurationError, match="at least 1 word"):
        QFS(0)
    with pytest.raises(ConfigurationError, match="known"):
        QFS(5, "other")
