"""Log records of level INFO that a person at a terminal should see: what takes long, and how long.

An application that configures logging sees them as what they are, records of level INFO. The command line shows them
by default, and leaves them out with `--quiet`.
"""

from __future__ import annotations

NOTICE: dict[str, object] = {"dynprag_notice": True}
"""Pass as `extra` of a call of a logger."""


def is_notice(record: object) -> bool:
    """Return whether a log record was made with `extra=NOTICE`."""
    return bool(getattr(record, "dynprag_notice", False))
