"""The description of a shared store: which model it is for, and in which version it is written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from llamaindex_prag.errors import StoreError
from llamaindex_prag.store.object.remote import RemoteFiles

FORMAT = "dynprag shared adapter store"
VERSION = 1
NAME = "format.json"

_SECRET = ("key", "secret", "token", "pass", "auth", "credential", "connection_string")


def opened_for(files: RemoteFiles, model: str | None, *, readonly: bool) -> str:
    """Return the fingerprint of the store's model, creating the store if there is none.

    Raises:
        StoreError: If the URL holds something else, a store of a newer version, or no store and it may not be created,
            or if objects cannot be written although they shall be.
    """
    found = _read(files)
    if found is None:
        if readonly:
            raise StoreError(f"there is no store at {files.url}; create it without readonly=True first")
        if not model:
            raise StoreError(f"there is no store at {files.url}; give the model's fingerprint to create one")
        if files.is_occupied():
            raise StoreError(
                f"{files.url} is not an adapter store: it has objects, but no {NAME}. Name an empty folder, or one "
                "that does not exist yet."
            )
        files.now()
        row = json.dumps({"format": FORMAT, "version": VERSION, "model": model}).encode()
        with contextlib.suppress(FileExistsError):  # another process was faster
            files.write(NAME, row, new=True)
        found = _read(files)
    elif not readonly:
        files.now()
    if found is None:
        raise StoreError(f"{files.address(NAME)} was written, but is not there: another process deletes the store")
    return found


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options whose names do not suggest credentials."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if not any(part in name.lower() for part in _SECRET):
            found[name] = without_secrets(value) if isinstance(value, Mapping) else value
    return found


def _read(files: RemoteFiles) -> str | None:
    try:
        content = files.read_plain(NAME)
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(content)
        known, version, model = fields["format"], int(fields["version"]), str(fields["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{files.url} is not an adapter store: {files.address(NAME)} has {content[:80]!r}") from error
    if known != FORMAT:
        raise StoreError(f"{files.url} is not an adapter store: it calls itself {known!r}, not {FORMAT!r}")
    if version > VERSION:
        raise StoreError(
            f"the store {files.url} has format version {version}; this release reads up to {VERSION}: upgrade dynprag"
        )
    return model
