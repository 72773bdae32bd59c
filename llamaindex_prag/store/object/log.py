"""The records of a shared store: read what others wrote, write one of one's own, and merge many into one.

    log/r-<writer>-<number>-<sha256>     what one change says
    log/s-<seen>-<sha256>                a snapshot: the join of many records, which may then be deleted

Nothing is ever overwritten, and no host waits for another. A reader joins every record and snapshot that is listed. A
listing is not atomic, so what a snapshot covers is deleted only when the snapshot is older than `SETTLED`, by the
server's clock, and a listing that took longer than that is made again: whatever is missing from a listing is then
covered by a snapshot that was there when it began.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
import uuid
import weakref
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from llamaindex_prag.errors import AdapterDamagedError, StoreError
from llamaindex_prag.store.object.causal import Delta, Dot, Dots
from llamaindex_prag.store.object.changes import Change
from llamaindex_prag.store.object.facts import Fact, GoneFact, from_plain, to_plain
from llamaindex_prag.store.object.remote import Listed, RemoteFiles
from llamaindex_prag.store.object.state import State

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

FOLDER = "log"
SETTLED = 60.0
"""Seconds after which a snapshot is in every listing."""
MANY = 64
"""Number of records from which a writer merges them."""
_THREADS = 16
_LISTINGS = 10


def elapsed() -> float:
    """Return seconds of a clock that never goes back, and goes on while the machine sleeps where that can be had."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class RecordLog:
    """The state of a store as this process knows it.

    Args:
        files: The store's objects.
        on_loss: Called with the digests of objects that are no longer part of the state.
    """

    def __init__(self, files: RemoteFiles, on_loss: Callable[[set[str]], None]) -> None:
        self.state = State()
        self.losses = 0
        """How many adapters were removed or replaced since the log was opened."""
        self.lock = threading.RLock()
        _logs.add(self)
        self._files, self._on_loss = files, on_loss
        self._read_at: float | None = None
        self._joined: set[str] = set()
        self._snapshots: dict[str, Dots] = {}
        self._stamps: dict[Dot, float] = {}
        self._writer, self._number, self._process = "", 0, 0
        self._merged_at = elapsed()

    def new_dot(self) -> Dot:
        """Return a dot that no process has used. A forked process is another writer."""
        with self.lock:
            if self._process != os.getpid():
                self._writer, self._number, self._process = uuid.uuid4().hex[:16], 0, os.getpid()
            self._number += 1
            return self._writer, self._number

    def refresh(self, max_age: float) -> State:
        """Return a state that has every record that was written `max_age` seconds ago.

        Raises:
            StoreError: If the records cannot be read; an older state is never returned in its place.
        """
        with self.lock:
            if self._read_at is None or elapsed() - self._read_at >= max_age:
                self._read()
            return self.state

    def commit(self, build: Callable[[Change], Result]) -> Result:
        """Read all records, build a change from them, and write it as one record, unless it is empty.

        Raises:
            StoreError: If it cannot be written. If the server could not be reached, it may take effect all the same.
        """
        with self.lock:
            change = Change(self.refresh(0.0), self.new_dot)
            result = build(change)
            if change:
                own = self.new_dot()
                delta = change.delta(own)
                content = _encoded(delta.seen, delta.facts, {})
                name = f"r-{own[0]}-{own[1]}-{hashlib.sha256(content).hexdigest()}"
                self._files.write(f"{FOLDER}/{name}", content)
                self._join(name, delta)
                self._merge_if_many()
            return result

    def merge(self, *, now: float | None = None, least: int = 2) -> None:
        """Delete what settled snapshots cover; write a snapshot of the rest if it has `least` records."""
        with self.lock:
            now = self._files.now() if now is None else now
            listed = self._read()
            settled = {name: self._snapshots[name] for name in listed if name in self._snapshots}
            settled = {name: dots for name, dots in settled.items() if now - listed[name].time >= SETTLED}
            covered = {name for name in listed if self._covered(name, settled)}
            fresh = {name: dots for name, dots in self._snapshots.items() if name in listed}
            if len([name for name in listed if not self._covered(name, fresh)]) >= least:
                self._write_snapshot(listed, now)
            for name in covered:
                self._files.delete(f"{FOLDER}/{name}")
            self._merged_at = elapsed()

    def recorded(self, now: float, listed: dict[str, Listed] | None = None) -> list[tuple[Dot, GoneFact, float]]:
        """Return what documents lost, each with the seconds since it was recorded, at least."""
        listed = self._read() if listed is None else listed
        times = dict(self._stamps)
        loose = {_own_dot(name): entry.time for name, entry in listed.items() if name.startswith("r-")}
        # The record's own dot is the last one that its writer took for it.
        found = []
        for dot, gone in self.state.all_of(GoneFact):
            if dot not in times:
                after = [number for writer, number in loose if writer == dot[0] and number > dot[1]]
                times[dot] = loose[dot[0], min(after)] if after else now
            found.append((dot, gone, now - times[dot]))
        return found

    def _read(self) -> dict[str, Listed]:
        """List and join all records; return the listing."""
        for _ in range(_LISTINGS):
            started = elapsed()
            listed = self._files.listed(FOLDER)
            if elapsed() - started > SETTLED / 2:
                continue
            new = sorted(name for name in listed if name not in self._joined)
            try:
                if new and new[-1].startswith("s-"):  # the largest snapshot: what it covers is not read
                    self._join_all([new.pop()])
                self._join_all([name for name in new if name.startswith("s-") or _own_dot(name) not in self.state.seen])
            except FileNotFoundError:  # merged into a snapshot in the meantime
                continue
            self._joined.update(new)
            self._joined.intersection_update(listed)
            self._snapshots = {name: dots for name, dots in self._snapshots.items() if name in listed}
            self._read_at = started
            return listed
        raise StoreError(
            f"{self._files.address(FOLDER)} could not be read in {_LISTINGS} attempts: records are merged, or the "
            "server lists them, too slowly"
        )

    def _join_all(self, names: list[str]) -> None:
        """Read records, several at once, and join them; only if all of them could be read."""
        paths = [f"{FOLDER}/{name}" for name in names]
        if len(paths) < 2:
            contents = [self._files.read(path) for path in paths]
        else:
            with ThreadPoolExecutor(min(_THREADS, len(paths))) as pool:
                contents = list(pool.map(self._files.read, paths))
        for name, content in zip(names, contents, strict=True):
            self._join(name, self._decoded(name, content))

    def _join(self, name: str, delta: Delta[Fact]) -> None:
        losses, digests = self.state.join(delta)
        self._joined.add(name)
        if name.startswith("s-"):
            self._snapshots[name] = delta.seen
        if losses:
            self.losses += losses
            self._on_loss(digests)

    def _covered(self, name: str, snapshots: dict[str, Dots]) -> bool:
        if name in self._snapshots:
            own = self._snapshots[name]
            return any(own <= dots and (name < other or not dots <= own) for other, dots in snapshots.items())
        return any(_own_dot(name) in dots for dots in snapshots.values())

    def _write_snapshot(self, listed: dict[str, Listed], now: float) -> None:
        self._stamps = {dot: now - age for dot, _, age in self.recorded(now, listed)}
        content = _encoded(self.state.seen, self.state.facts, self._stamps)
        name = f"s-{len(self.state.seen):012}-{hashlib.sha256(content).hexdigest()}"
        self._files.write(f"{FOLDER}/{name}", content)
        self._joined.add(name)
        copied = Dots()
        copied.update(self.state.seen)
        self._snapshots[name] = copied

    def _merge_if_many(self) -> None:
        loose = sum(name.startswith("r-") for name in self._joined)
        if loose >= MANY and elapsed() - self._merged_at > SETTLED / 2:
            self._merged_at = elapsed()
            try:
                self.merge(least=MANY // 2)
            except StoreError as error:  # the change itself is written
                logger.warning("%s was not tidied: %s", self._files.url, error)

    def _decoded(self, name: str, content: bytes) -> Delta[Fact]:
        try:
            data: dict[str, Any] = json.loads(zlib.decompress(content).decode("utf-8", "surrogatepass"))
            facts = {(str(writer), int(number)): from_plain(fact) for (writer, number), fact in data["facts"]}
            for (writer, number), when in data["stamps"]:
                self._stamps[writer, number] = max(when, self._stamps.get((writer, number), when))
            return Delta(Dots(data["seen"]), facts)
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise AdapterDamagedError(
                f"{self._files.address(FOLDER)}/{name} is not a record that this release reads: {error!r}"
            ) from error


_logs: weakref.WeakSet[RecordLog] = weakref.WeakSet()
_forking = contextlib.ExitStack()


def _before_fork() -> None:
    """Wait until no other thread changes a state: it would stay half-changed, and locked, in the new process."""
    for log in list(_logs):
        _forking.enter_context(log.lock)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_forking.close, after_in_child=_forking.close)


def _own_dot(name: str) -> Dot:
    writer, number = name.split("-")[1:3]
    return writer, int(number)


def _encoded(seen: Dots, facts: dict[Dot, Fact], stamps: dict[Dot, float]) -> bytes:
    data = {
        "seen": seen.to_dict(),
        "facts": [[dot, to_plain(facts[dot])] for dot in sorted(facts)],
        "stamps": sorted((dot, when) for dot, when in stamps.items()),
    }
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode("utf-8", "surrogatepass"), 6)
