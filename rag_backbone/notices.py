"""Log records of level INFO that a person at a terminal should see: slow operations and how long they take.

An application that configures logging sees them as ordinary records of level INFO. The command line shows them by
default, and hides them with `--quiet`.
"""

from __future__ import annotations

NOTICE: dict[str, object] = {"dynprag_notice": True}
"""Pass as `extra` in a logging call."""


def is_notice(record: object) -> bool:
    """Return whether a log record was created with `extra=NOTICE`."""
    return bool(getattr(record, "dynprag_notice", False))
