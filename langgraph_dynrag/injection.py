"""Answering from retrieved documents' adapters: the one module of this package that needs `llamaindex_prag`.

question -> retriever -> each passage's adapter, trained now if it is missing -> answer, text in the prompt or not
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.documents import Document

from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_core.retrievers import BaseRetriever

Inject = Literal["parametric", "combined"]


@dataclass(frozen=True, slots=True)
class InjectedAnswer:
    """An answer, and what it came from."""

    question: str
    answer: str
    inject: Inject
    documents: tuple[Document, ...]
    """Whose adapters were used."""
    trained: int
    """How many of them had to be trained first."""
    prompt_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        sources = [
            {"number": i, "title": d.metadata.get("title", ""), "source": d.metadata.get("source", "")}
            for i, d in enumerate(self.documents, 1)
        ]
        return {
            "question": self.question, "answer": self.answer, "inject": self.inject, "sources": sources,
            "trained": self.trained, "prompt_tokens": self.prompt_tokens,
        }  # fmt: skip


def ask_injected(
    question: str,
    retriever: BaseRetriever,
    *,
    model: str = "embedded",
    store: str | Path,
    inject: Inject = "parametric",
    max_tokens: int = 48,
    progress: bool = False,
) -> InjectedAnswer:
    """Retrieve once, and answer from the weights.

    Args:
        question: What is asked.
        retriever: Gives the passages.
        model: `"embedded"`, a folder or a Hub id.
        store: The folder of the model's adapters.
        inject: `"parametric"`: nothing of the passages stands in the prompt. `"combined"`: their texts too.
        max_tokens: Of the answer.
        progress: Whether to show a bar while adapters are trained.

    Raises:
        ConfigurationError: If `llamaindex_prag` is missing, or nothing was found.
    """
    try:
        from llamaindex_prag.parametric import ParametricModel
        from llamaindex_prag.parametrize import Parametrizer
        from llamaindex_prag.passages import Passage
        from llamaindex_prag.prompts import prompt_ids
        from llamaindex_prag.selection import BESIDE_TEXT
        from llamaindex_prag.store.lmdb_store import LMDBStore
    except ImportError as error:
        raise ConfigurationError(f"adapters need the parametric half ({error}): pip install 'dynprag[prag]'") from error
    from rag_backbone.causal_lm import CausalLM

    found = retriever.invoke(question)
    if not found:
        raise ConfigurationError(f"nothing was found for {question!r}; index documents first: dynprag index FOLDER")
    lm = CausalLM.from_pretrained(model)
    with LMDBStore(store, model=lm.fingerprint) as opened:
        parametric = ParametricModel(lm, opened, max_adapters=max(len(found), 1))
        passages = [_passage(d, Passage) for d in found]
        report = Parametrizer(parametric).parametrize(passages, progress=progress)
        known = [d for d in found if parametric.knows(d.page_content)]
        texts = [d.page_content for d in known]
        beside = texts if inject == "combined" else []
        answer = parametric.answer(
            question, documents=texts, passages=beside, max_new_tokens=max_tokens,
            strength=BESIDE_TEXT if beside else 1.0,
        )  # fmt: skip
        tokens = len(prompt_ids(lm.tokenizer, question, beside))
    return InjectedAnswer(question, answer, inject, tuple(known), report.trained, tokens)


def _passage(document: Document, kind: Any) -> Any:
    title = str(document.metadata.get("title", ""))
    return kind(document.page_content, title, str(document.metadata.get("source", "")))
