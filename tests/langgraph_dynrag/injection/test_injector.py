"""The injector of graphs whose evidence stays in the prompt."""

from langgraph_dynrag.evidence import passage
from langgraph_dynrag.injection.injector import Injector, PlacedEvidence, PromptOnly


def test_all_passages_stay_in_the_prompt_and_nothing_is_created():
    injector, passages = PromptOnly(), [passage("A bridge.", {}, "a"), passage("A river.", {}, "b")]
    assert isinstance(injector, Injector)
    assert injector.injection == "context"
    done = injector.prepare(passages)
    assert (done["trained"], done["translated"], done["failed"]) == (0, 0, {})
    placed = injector.place(passages, "Who?")
    assert placed == PlacedEvidence(passages, recorded=False)
    assert (placed.adapters, placed.in_weights, placed.strength) == (None, (), 1.0)
