"""Templates that let a model answer from its adapters."""

from llama_index.core.prompts import PromptTemplate

from tests.llamaindex_prag.llama_index.conftest import QUESTION, Fixed, alone, engine_of


def test_compact_makes_one_call_with_the_prompt_that_adapters_are_trained_on(llm, calls):
    response = engine_of(llm, Fixed(0, 1)).query(QUESTION)
    assert len(calls) == 1
    assert str(response) == alone(llm, 0, 1)
    assert str(response) != alone(llm, 0)


def test_a_users_template_is_not_replaced(llm, calls):
    template = PromptTemplate("Facts: {context_str}\nTell me: {query_str}")
    engine_of(llm, Fixed(0), text_qa_template=template).query(QUESTION)
    assert "Tell me: Who wrote a letter?" in calls[0][0]
    assert len(calls[0][1]) == 1
