"""The settings of a segment selection, and what they cannot be combined with."""

import math

import pytest

from langgraph_dynrag import SegmentSelection, create_dynamic_rag
from langgraph_dynrag.queries import QFS
from langgraph_dynrag.reflection.scores import Weights
from langgraph_dynrag.triggers import Reflection, TokenProbability
from rag_backbone.errors import ConfigurationError

YES_NO = ("yes", "no")


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "medium"}, "form is 'medium'; known: .*'short'"),
        ({"answers": YES_NO}, r"form 'long'; a vote needs whole answers: SegmentSelection\(form='short', answers="),
        ({"form": "short", "answers": "yes"}, r"answers is 'yes'; .*such as \('yes', 'no'\), or 'written'"),
        ({"form": "short", "answers": ("yes", 1)}, "answers is .*1.*; give the answers of the task"),
        ({"form": "short", "answers": {"yes", "no"}}, "give the answers of the task"),
        ({"form": "short", "answers": ("yes",)}, "a vote needs at least two"),
        ({"form": "short", "answers": ()}, "a vote needs at least two"),
        ({"form": "short", "answers": ("yes", "?!")}, r"answers has '\?!', which contains no letter"),
        ({"form": "short", "answers": ("Yes", "no", "yes.")}, "'Yes' and 'yes.', which differ only in case"),
    ],
)
def test_answers_that_cannot_be_voted_on_are_rejected(options, message):
    with pytest.raises(ConfigurationError, match=message):
        SegmentSelection(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": None}, r"Reflection.*decides before a segment.*selection=\w*Selection"),
        ({"selection": "tokens"}, "selection is 'tokens' .*a SegmentSelection or None is needed"),
        ({"trigger": TokenProbability(0.5)}, "TokenProbability.*judges what was written"),
        ({"query": QFS(5)}, "QFS.*reads its attention"),
        ({"reflector": None}, "has no argument 'reflector'"),
    ],
)
def test_incompatible_parts_are_rejected_when_the_graph_is_built(chat, retriever, options, message):
    with pytest.raises(ConfigurationError, match=message):
        create_dynamic_rag(chat, retriever, preset="self_rag", **options)
