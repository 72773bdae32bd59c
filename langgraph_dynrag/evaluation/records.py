"""Measurements on disk: one line of JSON for each finished question, so that an interrupted run can be resumed.

A record belongs to one question under one configuration. Its key covers everything that the result depends on, so
overlapping runs share records.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_backbone.documents.json_lines import rows
from rag_backbone.errors import ConfigurationError

REVISION = 3
"""Incremented when a code change invalidates earlier records."""


class Records:
    """Records of finished questions, in one file of JSON lines; several processes may append to it.

    Each record is on disk before `put` returns. The last line of a process that was killed while it wrote is ignored.

    Args:
        path: The file, which is created with its folder; None to keep the records in memory.

    Raises:
        ConfigurationError: If the file cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab"):  # found out now, not after the first answer
                pass
            for row in rows(path):
                if isinstance(row.value, dict) and "key" in row.value and "record" in row.value:
                    self._known[row.value["key"]] = row.value["record"]
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"the records {path} cannot be read or written: {error}") from error

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the record of a key, or None if there is none."""
        return self._known.get(key)

    def put(self, key: str, about: Mapping[str, Any], record: dict[str, Any]) -> None:
        """Append a record to the file.

        Args:
            key: The key, of `key_of`.
            about: What the key was made of, for readers of the file.
            record: The measurements.
        """
        line = json.dumps({"key": key, "about": about, "record": record}, ensure_ascii=False, default=repr)
        with self._lock:
            if self.path is not None:
                with self.path.open("a+b") as file:
                    # A line that a killed process left half-written must not swallow this one.
                    start = b"" if _ends_a_line(file) else b"\n"
                    file.write(start + line.encode("utf-8", "backslashreplace") + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
            self._known[key] = record


def key_of(about: Mapping[str, Any]) -> str:
    """Return a key that is equal exactly if the descriptions are equal."""
    text = json.dumps({**about, "revision": REVISION}, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _ends_a_line(file: Any) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")
