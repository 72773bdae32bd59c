"""One LMDB environment per folder and process, and none across a fork.

- Opening an LMDB environment twice in a process breaks its locks, so handles share one, with a reference count.
- An environment does not survive `fork`: the child may neither use nor close it (closing wipes the parent's entries in
  the reader table). So every environment is closed before a fork, and reopened lazily on both sides.
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
    """Return a folder's opened environment; call `release` when done. The arguments are `SharedEnvironment`'s."""
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
    """Release an environment; the last release closes it."""
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
