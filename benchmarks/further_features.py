"""Features of a drafted sentence that a learned trigger does not have, and whether they would add anything to it.

- Attention: RIND of DRAGIN and the trend of entropy of ETC, as in their papers; both would need attention weights of
  every draft, or a longer draft.
- Query: the best BM25 score of the sentence as a query, and its gap to the second-best; they would cost a search at
  every sentence.
- Margin: the least difference between the log-probabilities of a token and of its runner-up, among all tokens and among
  those of new names; drafts do not keep it.
- Hidden states: the log-odds of a probe (`langgraph_dynrag.calibration.probing`).

All but the last are judged by logistic regression only, without calibration, which does not change an order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from langgraph_dynrag.calibration.training import LabelledPoint, estimator_of
from langgraph_dynrag.drafts.draft import DraftView
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.triggers.features import new_name_tokens

ATTENTION = {"rind": "RIND, paper (DRAGIN)", "etc": "trend of entropy, paper (ETC)"}
"""Feature to the recorded trigger whose score it is."""
QUERY = ("query_score", "query_gap")
MARGINS = ("least_margin", "least_new_name_margin")
FURTHER = {"with RIND and ETC": tuple(ATTENTION), "with the query's scores": QUERY}
"""Name of a trigger to its further features."""
READ_AGAIN = {"with the margin": MARGINS}
"""The same for features that need one more forward pass over each sentence (`benchmarks.forced_signals`)."""
WITH_STATES = "with hidden states"
STATES_ALONE = "hidden states elsewhere, alone"


def margins_of(view: DraftView, margins: Sequence[float]) -> dict[str, float | None]:
    """Return a sentence's least margins, after tokenising it again: of all tokens, and of those of new names."""
    new = [margins[t] for t in new_name_tokens(view) if t < len(margins)]
    return dict(zip(MARGINS, (min(margins, default=None), min(new, default=None)), strict=True))


def further_features(point: Mapping[str, Any], index: BM25Retriever) -> dict[str, float | None]:
    """Return the further features of a recorded point, whose sentence is searched for in the index."""
    found = [float(d.metadata["score"]) for d in index.invoke(point["sentence"], k=2)] + [0.0, 0.0]
    return {
        **{name: point["triggers"][trigger]["score"] for name, trigger in ATTENTION.items()},
        **dict(zip(QUERY, (found[0], found[0] - found[1]), strict=True)),
    }


def ranked(train: Sequence[LabelledPoint], points: Sequence[LabelledPoint], features: Sequence[str]) -> list[float]:
    """Train on some points, and return the log-odds of the others."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def matrix(of: Sequence[LabelledPoint]) -> Any:  # (points, features); None becomes nan
        return np.asarray([[p.values[f] for f in features] for p in of], np.float64)

    model = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), estimator_of("logistic"))
    model.fit(matrix(train), [p.needed for p in train])
    return [float(score) for score in model.decision_function(matrix(points))]
