"""A scripted chat model with probabilities, and retrievers that record their queries.

For decisions computed by hand, because the uncertainty of a real model cannot be chosen.
"""

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from langgraph_dynrag.retrieval.bm25 import BM25Retriever

Token = tuple[str, float]


def said(text: str, **probabilities: float) -> list[Token]:
    """Split text into tokens with leading spaces. Probabilities are given by word; the default is 0.95."""
    pieces = re.findall(r"\s*\w+|\s*[^\w\s]", text)
    return [(p, probabilities.get(re.sub(r"\W", "", p), 0.95)) for p in pieces]


class ScriptedChatModel(BaseChatModel):
    """Returns its replies in order. Each one is a list of tokens with probabilities."""

    replies: list[list[Token]]
    reports: bool = True
    """Whether the model returns log-probabilities on request."""
    calls: list[list[BaseMessage]] = Field(default_factory=list)
    options: list[dict[str, Any]] = Field(default_factory=list)

    def _next(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> list[Token]:
        if messages[-1].content == "Say yes.":
            return [("yes", 0.9)]
        self.calls.append(messages)
        self.options.append(kwargs)
        if len(self.calls) > len(self.replies):
            raise AssertionError(f"asked {len(self.calls)} times; the last time: {messages[-1].content}")
        return self.replies[len(self.calls) - 1][: kwargs.get("max_tokens")]

    def _entry(self, token: Token) -> dict[str, Any]:
        import math

        text, p = token
        top = [{"token": text, "bytes": None, "logprob": math.log(p)}]
        if p < 1:
            top.append({"token": "?", "bytes": None, "logprob": math.log((1 - p) / 2)})
        return {"token": text, "bytes": list(text.encode()), "logprob": math.log(p), "top_logprobs": top}

    def _info(self, tokens: Sequence[Token], kwargs: dict[str, Any]) -> dict[str, Any]:
        if not (self.reports and kwargs.get("logprobs")):
            return {}
        return {"logprobs": {"content": [self._entry(t) for t in tokens]}}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        tokens = self._next(messages, kwargs)
        message = AIMessage("".join(t for t, _ in tokens), response_metadata=self._info(tokens, kwargs))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs) -> Iterator[ChatGenerationChunk]:
        for token in self._next(messages, kwargs):
            yield ChatGenerationChunk(
                message=AIMessageChunk(content=token[0]), generation_info=self._info([token], kwargs) or None
            )
        cut = len(self.replies[len(self.calls) - 1]) > (kwargs.get("max_tokens") or 10**9)
        reason = {"finish_reason": "length" if cut else "stop"}
        yield ChatGenerationChunk(message=AIMessageChunk(content=""), generation_info=reason)

    @property
    def _llm_type(self) -> str:
        return "scripted"


DOCUMENTS = [
    Document("The Cooper's Bridge was built by the mason Aldous Wray.", id="bridge", metadata={"title": "Bridge"}),
    Document("Aldous Wray was born in the village of Hallin.", id="wray", metadata={"title": "Aldous Wray"}),
    Document("The river Tamsin crosses Brannoch.", id="tamsin", metadata={"title": "Tamsin"}),
    Document("Joan Pike was a toll keeper's daughter.", id="pike", metadata={"title": "Joan Pike"}),
]


class WatchedRetriever(BaseRetriever):
    """BM25 over a few documents, or the results of `give`; records its queries."""

    give: Any = None
    queries: list[str] = Field(default_factory=list)
    delay: float = 0.0

    def _get_relevant_documents(self, query: str, *, run_manager, k: int = 3) -> list[Document]:
        self.queries.append(query)
        time.sleep(self.delay)
        if self.give is None:
            return BM25Retriever.from_documents(DOCUMENTS, k=k).invoke(query)
        found = self.give(query) if callable(self.give) else self.give
        if isinstance(found, Exception):
            raise found
        return found
