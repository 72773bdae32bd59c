"""A model call that a run can do without: its errors are recorded instead of raised."""

from __future__ import annotations

from langgraph.errors import GraphBubbleUp

from langgraph_dynrag.retrieval.retriever import PROGRAMMING_ERRORS


class OptionalCall:
    """A context manager that catches the errors of what runs inside it, except graph interrupts and programming errors.

    Args:
        problem: Why the call is not made at all; None if it is.
    """

    def __init__(self, problem: str | None = None) -> None:
        self._problem = problem

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, Exception) or isinstance(error, (GraphBubbleUp, *PROGRAMMING_ERRORS)):
            return False
        self._problem = f"{type(error).__name__}: {error}"
        return True
