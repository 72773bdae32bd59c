"""Templates that let a model answer from its adapters."""

import pytest
from llama_index.core.prompts import PromptTemplate
from llama_index.core.prompts import default_prompts as stock
from llama_index.core.query_engine import citation_query_engine as citation

from llamaindex_prag.llama_index.markers import marker
from llamaindex_prag.llama_index.prompts import REFINE, SUMMARY, TEXT_QA, permitting, refuse_reading_markers
from llamaindex_prag.prompts import user_text
from rag_backbone.errors import AdapterError
from tests.llamaindex_prag.llama_index.conftest import QUESTION, Fixed, alone, engine_of
from tests.llamaindex_prag.made import key_of


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


@pytest.mark.parametrize(
    ("template", "ours"),
    [
        (stock.DEFAULT_TEXT_QA_PROMPT, TEXT_QA),
        (stock.DEFAULT_REFINE_PROMPT, REFINE),
        (stock.DEFAULT_TREE_SUMMARIZE_PROMPT, SUMMARY),
    ],
)
def test_stock_templates_that_forbid_answering_from_the_weights_are_replaced(template, ours):
    found = permitting(template, None)
    assert found.get_template() == ours.get_template()
    assert set(found.template_vars) == set(template.template_vars)
    assert "prior knowledge" not in found.get_template()


def test_arguments_that_a_stock_template_already_has_are_kept():
    partial = stock.DEFAULT_TEXT_QA_PROMPT.partial_format(query_str="Who?")
    assert permitting(partial, None).format(context_str="A river.") == TEXT_QA.format(
        context_str="A river.", query_str="Who?"
    )
    assert TEXT_QA.kwargs == {}


def test_the_question_template_is_the_prompt_of_the_training():
    assert TEXT_QA.format(context_str="One.\n\nTwo.", query_str="Who?") == user_text("Who?", ["One.", "Two."])


def test_engines_that_paste_the_text_into_the_prompt_are_refused():
    for template in (citation.CITATION_QA_TEMPLATE, citation.CITATION_REFINE_TEMPLATE):
        with pytest.raises(AdapterError, match="CitationQueryEngine cuts the retrieved text"):
            permitting(template, None)


def test_a_prompt_that_ranks_passages_must_have_their_text():
    reference = marker(key_of("a text"))
    refuse_reading_markers(stock.DEFAULT_CHOICE_SELECT_PROMPT, {"context_str": "A river.", "query_str": "Who?"})
    refuse_reading_markers(stock.DEFAULT_TEXT_QA_PROMPT, {"context_str": reference})
    with pytest.raises(AdapterError, match=r"node_postprocessors=\[reranker, parametric\]"):
        refuse_reading_markers(stock.DEFAULT_CHOICE_SELECT_PROMPT, {"context_str": f"Document 1:\n{reference}"})
