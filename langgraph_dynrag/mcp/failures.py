"""Errors of a call as tool errors: what a client may know goes to the client, everything else to the log.

The text of an unexpected error may name files, addresses and code of this machine, so a client gets a reference, under
which the log has the error with its traceback.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from mcp.server.fastmcp.exceptions import ToolError

from rag_backbone.errors import ContextWindowError, NoAnswerError, ServerUnavailableError

logger = logging.getLogger(__name__)

_ABOUT_THE_CALL = (ContextWindowError, NoAnswerError)
"""Errors whose messages speak of the question and the model only."""


@contextmanager
def as_tool_errors(tool: str) -> Iterator[None]:
    """Raise every error within the block as a `ToolError` without a cause. A cancelled call stays cancelled.

    Args:
        tool: Name of the tool, for the log.
    """
    try:
        yield
    except ToolError:
        raise
    except _ABOUT_THE_CALL as error:
        logger.info("a call of %s was refused: %s", tool, error)
        raise ToolError(" ".join(str(error).split())) from None
    except Exception as error:
        reference = uuid.uuid4().hex[:8]
        logger.exception("a call of %s failed (reference %s)", tool, reference)
        if isinstance(error, ServerUnavailableError):
            reason = "the model's server cannot be reached at the moment; try again later"
        else:
            reason = "an internal error"
        raise ToolError(f"{reason} (reference {reference} in the server's log)") from None
