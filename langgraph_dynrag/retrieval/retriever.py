"""Check a retriever, call it synchronously or asynchronously, and check what it returns.

A retriever that only works asynchronously can also be called from synchronous code, and vice versa. Knows nothing about
timeouts and policies; see `langgraph_dynrag.nodes.retrieve`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

from langchain_core.documents import Document
from langchain_core.language_models import BaseLanguageModel
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.prompts import BasePromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.pregel import Pregel
from pydantic import ValidationError

from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError

_T = TypeVar("_T")

Retriever: TypeAlias = Runnable[str, Any]
"""A LangChain `BaseRetriever`, or another runnable from a query to a list of documents: `retriever.with_retry()`,
`retriever | reranker`, `RunnableLambda(function)`."""

PROGRAMMING_ERRORS = (
    AssertionError,
    AttributeError,
    ConfigurationError,
    ImportError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValidationError,
)
"""Errors that indicate a bug rather than a failed search; no retrieval policy continues after one."""

_OTHER_RUNNABLES = (BaseLanguageModel, BaseOutputParser, BasePromptTemplate, BaseTool, Pregel)
_WRAPPED = "RunnableLambda(lambda query: [Document(n.text, metadata=n.metadata) for n in retriever.retrieve(query)])"


def check_retriever(value: object, name: str = "retriever") -> None:
    """Check that a value can be called as a retriever.

    Raises:
        ConfigurationError: If it cannot; the message names what was given and the line to write instead.
    """
    if not isinstance(value, type) and isinstance(value, Runnable) and not isinstance(value, _OTHER_RUNNABLES):
        return
    what = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
    raise ConfigurationError(
        f"{name} is {what}; a LangChain BaseRetriever is needed, or another runnable from a query to documents. "
        f"{_advice(value)}"
    )


def call_retriever(retriever: Retriever, query: str, config: RunnableConfig, k: int | None = None) -> list[Document]:
    """Return the documents for a query.

    Args:
        retriever: The retriever to call.
        query: The text to search for.
        config: The config with the retriever's callbacks.
        k: Number of documents wanted; passed on if the retriever accepts it.

    Raises:
        ConfigurationError: If the retriever returns anything but documents.
    """
    options = _options(retriever, "_get_relevant_documents", k)
    try:
        returned = retriever.invoke(query, config, **options)
    except (NotImplementedError, TypeError) as error:
        if not _is_only_asynchronous(error):
            raise
        returned = _with_first_error(error, retriever, query, config, k)
    if inspect.isawaitable(returned):
        returned = _wait_for(returned)
    return _documents(returned, retriever)


async def acall_retriever(
    retriever: Retriever, query: str, config: RunnableConfig, k: int | None = None
) -> list[Document]:
    """Return the documents for a query, without blocking the event loop; see `call_retriever`."""
    options = _options(retriever, "_aget_relevant_documents", k)
    if options != _options(retriever, "_get_relevant_documents", k):
        # A synchronous retriever that takes k: LangChain's default asynchronous method does not.
        return await asyncio.wrap_future(in_daemon_thread(call_retriever, retriever, query, config, k))
    try:
        returned = await retriever.ainvoke(query, config, **options)
    except NotImplementedError as error:
        options = _options(retriever, "_get_relevant_documents", k)
        try:
            returned = await asyncio.wrap_future(in_daemon_thread(retriever.invoke, query, config, **options))
        except NotImplementedError:
            raise error from None
    if inspect.isawaitable(returned):
        returned = await returned
    return _documents(returned, retriever)


def in_daemon_thread(function: Callable[..., _T], *args: Any, **kwargs: Any) -> Future[_T]:
    """Call a function in a new daemon thread, with a copy of the current context.

    A search that hangs must not delay the next one or the end of the process, as it would in a thread pool.
    """
    future: Future[_T] = Future()
    future.set_running_or_notify_cancel()  # the call cannot be cancelled; it keeps running if the caller gives up
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(function, *args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - re-raised by future.result()
            future.set_exception(error)

    threading.Thread(target=work, name="dynrag-retrieve", daemon=True).start()
    return future


def explained(error: Exception, query: str) -> Exception:
    """Add a note to a programming error that says where it was raised, and return it."""
    error.add_note(f"raised by the retriever in the search for {query!r}; errors of this kind always end the run")
    return error


def _is_only_asynchronous(error: Exception) -> bool:
    # A RunnableLambda of an asynchronous function raises a TypeError that names the method to use.
    return isinstance(error, NotImplementedError) or "ainvoke" in str(error)


def _with_first_error(error: Exception, retriever: Retriever, query: str, config: RunnableConfig, k: int | None) -> Any:
    options = _options(retriever, "_aget_relevant_documents", k)
    try:
        return _wait_for(retriever.ainvoke(query, config, **options))
    except NotImplementedError:
        raise error from None


def _wait_for(awaitable: Awaitable[Any]) -> Any:
    async def waited() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(waited())
    return in_daemon_thread(asyncio.run, waited()).result()  # this thread's loop is busy with the caller


def _options(retriever: Retriever, method: str, k: int | None) -> dict[str, Any]:
    """Return `k` as an option if the method accepts it; callers truncate the result to `k` in any case."""
    known: Callable[..., Any] | None = (
        getattr(retriever, method, None) if isinstance(retriever, BaseRetriever) else None
    )
    if k is None or known is None:
        return {}
    parameters = inspect.signature(known).parameters
    takes = "k" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {"k": k} if takes else {}


def _documents(returned: Any, retriever: Retriever) -> list[Document]:
    """Check that documents were returned, and return them as a list."""
    needed = "a list of LangChain Documents is needed"
    name = retriever.get_name()
    if isinstance(returned, str | bytes | Mapping) or not isinstance(returned, Iterable):
        forgot = "; does it lack a `return`?" if returned is None else ""
        raise ConfigurationError(f"the retriever {name} returned {shown(returned)}; {needed}{forgot}")
    found = list(returned)
    for item in found:
        if not isinstance(item, Document):
            raise ConfigurationError(
                f"the retriever {name} returned a list that holds {shown(item)}; {needed}{_conversion(item)}"
            )
    return found


def _conversion(item: object) -> str:
    if isinstance(item, str):
        return ", such as Document(page_content=text)"
    if isinstance(item, Mapping):
        return ", such as Document(page_content=found['text'], metadata=found)"
    if isinstance(item, tuple):
        return "; of pairs with scores keep the documents: [document for document, score in found]"
    return f". For LlamaIndex: {_WRAPPED}" if _is_llama_index(item) else ""


def _advice(value: object) -> str:
    if isinstance(value, type):
        return f"Pass an instance: {value.__name__}(...)"
    if _is_llama_index(value):
        made = "retriever = index.as_retriever(), then " if hasattr(value, "as_retriever") else ""
        return f"For LlamaIndex: {made}{_WRAPPED}"
    if hasattr(value, "as_retriever"):
        return "For a vector store: store.as_retriever()"
    if isinstance(value, list | tuple):
        return "For documents: BM25Retriever.from_documents(documents), of langgraph_dynrag.retrieval"
    if callable(value) and not isinstance(value, Runnable):
        return "For a function: RunnableLambda(function), of langchain_core.runnables"
    return "For a vector store: store.as_retriever(). For a folder: LocalIndex(folder).as_retriever()"


def _is_llama_index(value: object) -> bool:
    return any(kind.__module__.partition(".")[0] == "llama_index" for kind in type(value).__mro__)
