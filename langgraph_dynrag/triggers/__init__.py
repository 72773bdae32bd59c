"""Triggers, which decide when to retrieve."""

from langgraph_dynrag.triggers.base import BaseTrigger, Trigger
from langgraph_dynrag.triggers.combined import AllOf, AnyOf
from langgraph_dynrag.triggers.confidence import Entropy, TokenProbability
from langgraph_dynrag.triggers.etc import ETC
from langgraph_dynrag.triggers.fixed import EveryNTokens, EverySentence, Never, Once, ReasoningSteps, WholeAnswers
from langgraph_dynrag.triggers.learned import LearnedTrigger
from langgraph_dynrag.triggers.reflection import Reflection
from langgraph_dynrag.triggers.rind import RIND
from langgraph_dynrag.triggers.seakr import SelfAwareUncertainty
from langgraph_dynrag.triggers.written_tag import WrittenTag

__all__ = [
    "ETC",
    "RIND",
    "AllOf",
    "AnyOf",
    "BaseTrigger",
    "Entropy",
    "EveryNTokens",
    "EverySentence",
    "LearnedTrigger",
    "Never",
    "Once",
    "ReasoningSteps",
    "Reflection",
    "SelfAwareUncertainty",
    "TokenProbability",
    "Trigger",
    "WholeAnswers",
    "WrittenTag",
]
