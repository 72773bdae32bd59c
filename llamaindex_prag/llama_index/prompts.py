"""Prompt templates that let a model answer from its adapters.

LlamaIndex's stock templates say "given the context information and not prior knowledge", which forbids a model to
answer from its weights. `ParametricLLM` replaces these stock templates with the ones defined here, which are the
prompts that adapters are trained on. A user's template is never replaced.
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
"""The same prompt as `prompts.user_text`."""
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
    """Return the template, or our replacement if it is a stock template that forbids parametric answers.

    Raises:
        AdapterError: If the template belongs to an engine that pastes the nodes' text into the prompt.
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
    """Check that a prompt that ranks passages was given their text, not markers.

    Raises:
        AdapterError: If it was given markers; the message shows the correct order of postprocessors.
    """
    if prompt.metadata.get("prompt_type") != PromptType.CHOICE_SELECT:
        return
    if any(isinstance(value, str) and has_markers(value) for value in arguments.values()):
        raise AdapterError(
            "a postprocessor that reads the passages (a reranker) comes after ParametricNodePostprocessor, which has "
            "already replaced their text in prompts. Put it before: node_postprocessors=[reranker, parametric]."
        )
