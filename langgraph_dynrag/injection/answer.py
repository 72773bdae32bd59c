"""What asking one model with documents' adapters gives, without a graph. Knows no adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.documents import Document

from rag_backbone.documents.names import source_of, title_of

How = Literal["parametric", "combined", "translated"]


@dataclass(frozen=True, slots=True)
class InjectedAnswer:
    """An answer, and what it came from."""

    question: str
    answer: str
    inject: How
    documents: tuple[Document, ...]
    """Those that were used."""
    trained: int
    """How many of them had to be trained first."""
    translated: int
    """How many of them had to be read by the translator first."""
    prompt_tokens: int
    left_out: tuple[Document, ...] = ()
    """Retrieved, and not used: the adapters of several documents weaken each other."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data, with the keys of `Trace.to_dict` as far as there is something to say."""
        sources = [
            {"number": i, "title": title_of(d.metadata), "source": source_of(d.metadata), "text": d.page_content}
            for i, d in enumerate((*self.documents, *self.left_out), 1)
        ]
        used = len(self.documents)
        searched = {"type": "retrieval", "query": self.question, "documents": sources, "error": None}
        injected = {
            "type": "injection",
            "inject": self.inject,
            "trained": self.trained,
            "translated": self.translated,
            "prompt_tokens": self.prompt_tokens,
        }
        return {
            "question": self.question,
            "answer": self.answer,
            "short_answer": self.answer,
            "inject": self.inject,
            "sources": sources[:used],
            "left_out": sources[used:],
            "trace": [searched, injected],
            "counts": {"retrievals": 1},
            "trained": self.trained,
            "translated": self.translated,
            "prompt_tokens": self.prompt_tokens,
        }
