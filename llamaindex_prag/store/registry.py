"""One environment for each folder in a process, and none across a fork.

- Opening an LMDB environment twice in a process breaks its locks, so handles share one, counted.
- An environment does not survive `fork`: the child may neither use it nor close it (closing wipes the parent's entries
  in the table of readers). So before a fork every environment is closed, and both sides reopen theirs at the next use.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from llamaindex_prag.store.environment import SharedEnvironment

_environments: dict[Path, SharedEnvironment] = {}
_handles: dict[SharedEnvironment, int] = {}
_lock = threading.RLock()
_forking = contextlib.ExitStack()


def acquire(
    folder: Path,
    tables: tuple[str, ...],
    check: Callable[[bytes | None], None],
    map_size: int,
    *,
    readonly: bool,
) -> SharedEnvironment:
    """The environment of a folder, opened; give it back with `release`. Arguments as of `SharedEnvironment`."""
    folder = folder.resolve()
    with _lock:
        environment = _environments.get(folder)
        if environment is None or environment.is_stale():
            environment = SharedEnvironment(folder, tables, check, map_size, readonly=readonly)
        environment.open(readonly=readonly)
        _environments[folder] = environment
        _handles[environment] = _handles.get(environment, 0) + 1
        return environment


def release(environment: SharedEnvironment) -> None:
    """Give an environment back; the last one to do so closes it."""
    with _lock:
        _handles[environment] -= 1
        if not _handles[environment]:
            del _handles[environment]
            environment.close()
            if _environments.get(environment.folder) is environment:
                del _environments[environment.folder]


def _before_fork() -> None:
    _lock.acquire()
    for environment in _handles:
        _forking.enter_context(environment.closed())


def _after_fork_in_parent() -> None:
    _forking.close()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock, _forking
    _lock, _forking = threading.RLock(), contextlib.ExitStack()
    for environment in _handles:
        environment.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
