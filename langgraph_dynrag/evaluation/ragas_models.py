"""LangChain's chat models and embeddings as ragas' metrics call them. Imports ragas.

ragas' own wrappers of LangChain are deprecated, and report their use to its makers unless `RAGAS_DO_NOT_TRACK` is set.
These send nothing anywhere.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from pydantic import BaseModel
from ragas.embeddings import BaseRagasEmbedding
from ragas.llms import InstructorBaseRagasLLM

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.evaluation.judges import model_name
from rag_backbone.aio import in_own_thread
from rag_backbone.errors import ConfigurationError

REPLY_TOKENS = 1024
"""Least `max_tokens` of a local model that judges; a reply repeats each statement of the answer."""
_Reply = TypeVar("_Reply", bound=BaseModel)


class _Trial(BaseModel):
    """A schema to find out whether a model takes any."""

    score: int


class StructuredModel(InstructorBaseRagasLLM):
    """A chat model of LangChain whose replies follow the schema that a metric asks for.

    Raises:
        ConfigurationError: If the model's replies cannot follow a schema.
    """

    def __init__(self, model: BaseChatModel) -> None:
        self.model = model
        try:
            self._by(_Trial)
        except NotImplementedError as error:
            raise ConfigurationError(
                f"{model_name(model)} ({type(model).__name__}) cannot judge: metrics of ragas need replies that follow "
                "a schema, and it has no with_structured_output"
            ) from error

    def generate(self, prompt: str, response_model: type[_Reply]) -> _Reply:
        """Return the reply to a prompt, parsed by the schema.

        Raises:
            ValueError: If the reply does not follow it.
        """
        reply = self._by(response_model).invoke(prompt)
        if not isinstance(reply, response_model):
            raise ValueError(f"{model_name(self.model)} gave no {response_model.__name__} but {reply!r}")  # noqa: TRY004
        return reply

    async def agenerate(self, prompt: str, response_model: type[_Reply]) -> _Reply:
        """Await `generate`."""
        # Not `ainvoke`: each score has an event loop of its own, and clients keep connections of the first one.
        return await in_own_thread(self.generate, prompt, response_model)

    def _by(self, schema: type[BaseModel]) -> Runnable[Any, Any]:
        if isinstance(self.model, LocalChatModel):
            # The prompt describes the schema already.
            tokens = max(self.model.max_tokens, REPLY_TOKENS)
            return self.model.with_structured_output(schema, method="json_schema", max_tokens=tokens)
        return cast("Runnable[Any, Any]", self.model.with_structured_output(schema))

    def __repr__(self) -> str:
        return f"StructuredModel({model_name(self.model)!r})"


class TextEmbeddings(BaseRagasEmbedding):
    """Embeddings of LangChain as ragas' metrics call them."""

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        self.embeddings = embeddings

    def embed_text(self, text: str, **kwargs: Any) -> list[float]:  # noqa: ARG002 - no option of ours
        """Return the vector of a text."""
        return self.embeddings.embed_query(text)

    async def aembed_text(self, text: str, **kwargs: Any) -> list[float]:  # noqa: ARG002
        """Await `embed_text`."""
        return await in_own_thread(self.embeddings.embed_query, text)

    def __repr__(self) -> str:
        return f"TextEmbeddings({self.embeddings!r})"
