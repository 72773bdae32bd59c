"""Maintenance of a whole store: garbage collection, statistics, listing, verification."""

from __future__ import annotations

from llamaindex_prag.errors import AdapterDamagedError
from llamaindex_prag.store import entries, ownership
from llamaindex_prag.store.base import AdapterStore, GcReport, StoredAdapter, StoreStats, VerifyReport
from llamaindex_prag.store.environment import Rows, SharedEnvironment

_HASH = 32


def collect(environment: SharedEnvironment) -> GcReport:
    """Remove the texts whose last owner is gone, then compact the file if possible."""

    def change(rows: Rows) -> tuple[list[str], int]:
        texts = ownership.unowned(rows)
        removed = sum(entries.remove_text(rows, text) for text in texts)
        entries.drop_unused_layouts(rows)
        return [text.hex() for text in texts], removed

    before, _ = environment.sizes()
    texts, removed = environment.write(change)
    reason = environment.compact()
    return GcReport(
        removed_texts=texts,
        removed_adapters=removed,
        bytes_before=before,
        bytes_after=environment.sizes()[0],
        compacted=not reason,
        reason=reason,
    )


def to_collect(environment: SharedEnvironment) -> GcReport:
    """Return what `collect` would remove."""
    size, _ = environment.sizes()
    with environment.read() as rows:
        texts = ownership.unowned(rows)
        removed = sum(len(rows.keys("values", text)) for text in texts)
    return GcReport.of_dry_run([text.hex() for text in texts], removed, size)


def measure(environment: SharedEnvironment, model: str, encoding: str) -> StoreStats:
    """Return the store's statistics, from the tables' counters only."""
    file_bytes, map_bytes = environment.sizes()
    with environment.read() as rows:
        values = rows.stat("values")
        return StoreStats(
            path=str(environment.folder),
            model=model,
            encoding=encoding,
            adapters=values["entries"],
            documents=rows.stat("documents")["entries"],
            side_entries=rows.stat("side")["entries"],
            unowned_texts=rows.stat("unowned")["entries"],
            generation=entries.generation(rows),
            value_bytes=values["psize"] * (values["branch_pages"] + values["leaf_pages"] + values["overflow_pages"]),
            file_bytes=file_bytes,
            map_bytes=map_bytes,
        )


def listed(environment: SharedEnvironment) -> list[StoredAdapter]:
    """List every adapter, by document, recipe and text, without decoding values."""
    found = []
    with environment.read() as rows:
        for name, value in rows.items("values"):
            text, recipe = name[:_HASH], name[_HASH:]
            row = rows.get("records", name)
            record = {} if row is None else entries.from_json(row)
            documents = ownership.owners_of(rows, text)
            found.append(StoredAdapter.of(text.hex(), recipe.hex(), len(value), record, documents))
    return sorted(found, key=lambda adapter: (adapter.documents, adapter.recipe, adapter.text))


def verify(store: AdapterStore, *, progress: bool) -> VerifyReport:
    """Read every adapter, each in a separate transaction, so that a concurrent writer is not blocked."""
    from tqdm import tqdm

    checked, damaged = 0, []
    for key in tqdm(store.keys(), desc="adapters", disable=not progress):
        try:
            if store.get(key) is None:  # removed in the meantime
                continue
            if store.record(key) is None and key in store:
                damaged.append((key, "it has no record"))
        except AdapterDamagedError as error:
            damaged.append((key, str(error)))
        checked += 1
    return VerifyReport(checked=checked, damaged=tuple(damaged))
