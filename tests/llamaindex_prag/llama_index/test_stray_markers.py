"""References to adapters in prompts of other models are logged."""

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine

from llamaindex_prag.llama_index import ParametricNodePostprocessor
from tests.llamaindex_prag.llama_index.conftest import QUESTION, Fixed


async def test_references_passed_to_another_llm_are_logged(llm, caplog):
    post = ParametricNodePostprocessor(llm=llm, missing="error")
    for made in (MockLLM(max_tokens=4), llm):
        caplog.clear()
        engine = RetrieverQueryEngine.from_args(Fixed(0), llm=made, node_postprocessors=[post])
        engine.query(QUESTION)
        await engine.aquery(QUESTION)
        told = [r.getMessage() for r in caplog.records if r.name.endswith("stray_markers")]
        assert bool(told) == (made is not llm)
        assert all("a prompt for MockLLM holds references to adapters" in message for message in told)
