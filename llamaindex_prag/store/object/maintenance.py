"""Maintenance of a shared store: garbage collection, statistics, listing, verification."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.errors import AdapterDamagedError
from llamaindex_prag.store.base import GcReport, StoredAdapter, StoreStats, VerifyReport
from llamaindex_prag.store.encoding import decode_into
from llamaindex_prag.store.object.causal import Dot
from llamaindex_prag.store.object.contents import OBJECTS, Contents
from llamaindex_prag.store.object.facts import AdapterFact, SideFact
from llamaindex_prag.store.object.log import RecordLog
from llamaindex_prag.store.object.remote import RemoteFiles
from llamaindex_prag.store.object.state import State


def collect(log: RecordLog, files: RemoteFiles, grace: float) -> GcReport:
    """Remove the texts whose last owner is gone, merge records, and delete objects that no fact needs.

    The object of a fact that was removed for good is deleted at once. Others wait for `grace` seconds: those that a
    document lost, because another host may be adding an owner, and those that no record names yet.
    """
    with log.lock:
        texts = log.refresh(0.0).unowned()
        removed = sum(len(log.state.adapters_of(text)) for text in texts)
        if texts:
            log.commit(lambda change: change.purge(texts))
        now = files.now()
        recorded = log.recorded(now)
        due = [(dot, gone) for dot, gone, age in recorded if age >= grace]
        waiting = [gone for dot, gone, age in recorded if age < grace and log.state.removes(dot, gone)]
        if due:
            log.commit(lambda change: change.settle(due))
        log.merge(now=now)
        before, after, young = _delete_objects(log.state, files, now, grace)
        files.tidy(now, grace)
    reasons = []
    if waiting:
        reasons.append(f"the bytes of {len({gone.text for gone in waiting})} texts removed less than {grace:g} s ago")
    if young:
        reasons.append(f"{young} objects younger than that which no record names yet")
    return GcReport(
        removed_texts=texts,
        removed_adapters=removed,
        bytes_before=before,
        bytes_after=after,
        compacted=not reasons,
        reason=f"these stay until a later gc: {'; '.join(reasons)}" if reasons else "",
    )


def to_collect(state: State, files: RemoteFiles) -> GcReport:
    """Return what `collect` would remove."""
    texts = state.unowned()
    size = sum(entry.size for entry in files.listed(OBJECTS).values())
    return GcReport.of_dry_run(texts, sum(len(state.adapters_of(text)) for text in texts), size)


def measure(state: State, files: RemoteFiles, model: str, encoding: str, losses: int) -> StoreStats:
    """Return the store's statistics; lists all objects."""
    adapters = [fact for _, fact in state.adapters()]
    objects = sum(entry.size for entry in files.listed(OBJECTS).values())
    return StoreStats(
        path=files.url,
        model=model,
        encoding=encoding,
        adapters=len(adapters),
        documents=len(state.documents()),
        side_entries=state.side_entries(),
        unowned_texts=len(state.unowned()),
        generation=losses,
        value_bytes=sum(fact.size for fact in adapters),
        file_bytes=objects,
        map_bytes=objects,
    )


def listed(state: State) -> list[StoredAdapter]:
    """List every adapter, by document, recipe and text, without reading values."""
    found = []
    for _, fact in state.adapters():
        documents = sorted({owner.document for _, owner in state.owners(fact.text)})
        found.append(StoredAdapter.of(fact.text, fact.recipe, fact.size, json.loads(fact.record), documents))
    return sorted(found, key=lambda adapter: (adapter.documents, adapter.recipe, adapter.text))


def verify(
    adapters: Sequence[tuple[Dot, AdapterFact]],
    contents: Contents,
    model: str,
    is_there: Callable[[AdapterKey], bool],
    *,
    progress: bool,
) -> VerifyReport:
    """Read and check adapters, past the cache; those that are removed in the meantime are skipped."""
    from tqdm import tqdm

    checked, damaged = 0, []
    for dot, fact in tqdm(adapters, desc="adapters", disable=not progress):
        key = AdapterKey(model, fact.recipe, fact.text)
        try:
            out = np.empty(contents.layout(fact.layout).size, np.float32)
            decode_into(contents.read(dot, fact, cached=False), out)
        except FileNotFoundError:
            if not is_there(key):
                continue
            damaged.append((key, f"{contents.address(dot, fact)} does not exist"))
        except AdapterDamagedError as error:
            damaged.append((key, str(error)))
        checked += 1
    return VerifyReport(checked=checked, damaged=tuple(damaged))


def _delete_objects(state: State, files: RemoteFiles, now: float, grace: float) -> tuple[int, int, int]:
    """Delete objects without a fact; return the bytes before and after, and how many are too young to be deleted."""
    needed = {(dot, fact.digest) for dot, fact in state.facts.items() if isinstance(fact, AdapterFact | SideFact)}
    before = after = young = 0
    for name, entry in files.listed(OBJECTS).items():
        before += entry.size
        writer, number, digest = (*name.split("-"), "", "")[:3]
        if not number.isdigit():  # not written by a store
            after += entry.size
            continue
        dot = (writer, int(number))
        if (dot, digest) in needed:
            after += entry.size
        elif dot not in state.seen and now - entry.time < grace:
            after += entry.size
            young += 1
        else:
            files.delete(f"{OBJECTS}/{name}")
    return before, after, young
