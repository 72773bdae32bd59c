"""Prompt templates under which adapters answer, and their place.

LlamaIndex's own templates say "given the context information and not prior knowledge", which forbids a model to answer
from its weights. Where an engine was built with those, `ParametricLLM` puts these in their place; a template of the
user's own is never exchanged. They are the prompts that adapters are trained on.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.prompts import BasePromptTemplate, PromptTemplate, PromptType
from llama_index.core.prompts import default_prompts as stock
from llama_index.core.query_engine import citation_query_engine as citation

from llamaindex_prag.llama_index.markers import has_markers
from llamaindex_prag.prompts import INSTRUCTION, LABEL
from rag_backbone.errors import AdapterError

TEXT_QA = PromptTemplate(
    INSTRUCTION + "\n\n{context_str}\n\nQuestion: {query_str}\n" + LABEL, prompt_type=PromptType.QUESTION_ANSWER
)
"""What `prompts.user_text` gives."""
REFINE = PromptTemplate(
    INSTRUCTION + "\n\n{context_msg}\n\nQuestion: {query_str}\nAn earlier answer: {existing_answer}\n"
    "Give the better answer. " + LABEL,
    prompt_type=PromptType.REFINE,
)
SUMMARY = PromptTemplate("{context_str}\n\n{query_str}", prompt_type=PromptType.SUMMARY)

_EXCHANGED = {
    stock.DEFAULT_TEXT_QA_PROMPT_TMPL: TEXT_QA,
    stock.DEFAULT_REFINE_PROMPT_TMPL: REFINE,
    stock.DEFAULT_TREE_SUMMARIZE_TMPL: SUMMARY,
}
_PASTED = {citation.CITATION_QA_TEMPLATE.template, citation.CITATION_REFINE_TEMPLATE.template}


def permitting(prompt: BasePromptTemplate, llm: Any) -> BasePromptTemplate:
    """The template itself, or ours in the place of a stock one that forbids parametric answers.

    Raises:
        AdapterError: If the template belongs to an engine that pastes the nodes' text.
    """
    text = prompt.get_template(llm=llm)
    if text in _PASTED:
        raise AdapterError(
            "CitationQueryEngine cuts the retrieved text into numbered sources and pastes it into the prompt, so "
            "nothing would be answered from the weights. Use index.as_query_engine(...): its response.source_nodes "
            "cite the passages as they are."
        )
    ours = _EXCHANGED.get(text)
    if ours is None:
        return prompt
    given = getattr(prompt, "kwargs", None) or {}
    return ours.partial_format(**given) if given else ours


def refuse_reading_markers(prompt: BasePromptTemplate, arguments: dict[str, Any]) -> None:
    """Refuse a prompt that judges passages of which it was given only markers.

    Raises:
        AdapterError: With the order in which postprocessors have to stand.
    """
    if prompt.metadata.get("prompt_type") != PromptType.CHOICE_SELECT:
        return
    if any(isinstance(value, str) and has_markers(value) for value in arguments.values()):
        raise AdapterError(
            "a postprocessor that reads the passages (a reranker) stands after ParametricNodePostprocessor, which has "
            "already replaced their text in prompts. Put it before: node_postprocessors=[reranker, parametric]."
        )
