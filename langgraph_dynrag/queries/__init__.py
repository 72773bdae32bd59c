"""Query formulators, which decide what to retrieve."""

from langgraph_dynrag.queries.base import BaseFormulator, QueryFormulator, QueryPlan
from langgraph_dynrag.queries.flare import ExplicitQuestion, MaskedSentence
from langgraph_dynrag.queries.qfs import QFS
from langgraph_dynrag.queries.rewrite import Rewrite, WithQuestion
from langgraph_dynrag.queries.seakr import KnownWords
from langgraph_dynrag.queries.search_tag import SearchTag
from langgraph_dynrag.queries.simple import AnswerThenQuestion, LastSentence, LastTokens, Question

__all__ = [
    "QFS",
    "AnswerThenQuestion",
    "BaseFormulator",
    "ExplicitQuestion",
    "KnownWords",
    "LastSentence",
    "LastTokens",
    "MaskedSentence",
    "QueryFormulator",
    "QueryPlan",
    "Question",
    "Rewrite",
    "SearchTag",
    "WithQuestion",
]
