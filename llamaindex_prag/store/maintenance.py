"""Maintenance of a whole store: garbage collection, statistics, listing, verification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamaindex_prag.errors import AdapterDamagedError
from llamaindex_prag.store import entries, ownership
from llamaindex_prag.store.base import AdapterStore, GcReport, StoredAdapter, StoreStats, VerifyReport
from llamaindex_prag.store.environment import SharedEnvironment

if TYPE_CHECKING:
    import lmdb
    from lmdb import _Database as Table

_HASH = 32


def collect(environment: SharedEnvironment) -> GcReport:
    """Remove the texts whose last owner is gone, then compact the file if possible."""

    def change(transaction: lmdb.Transaction[bytes], tables: dict[str, Table]) -> tuple[list[str], int]:
        texts = ownership.unowned(transaction, tables)
        removed = sum(entries.remove_text(transaction, tables, text) for text in texts)
        entries.drop_unused_layouts(transaction, tables)
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
    with environment.read() as (transaction, tables):
        texts = ownership.unowned(transaction, tables)
        removed = sum(1 for text in texts for _ in ownership.starting_with(transaction, tables["values"], text))
    return GcReport(
        removed_texts=[text.hex() for text in texts],
        removed_adapters=removed,
        bytes_before=size,
        bytes_after=size,
        compacted=False,
        reason="nothing was changed: this only reports what would be removed",
    )


def measure(environment: SharedEnvironment, model: str, encoding: str) -> StoreStats:
    """Return the store's statistics, from the tables' counters only."""
    file_bytes, map_bytes = environment.sizes()
    with environment.read() as (transaction, tables):
        values = transaction.stat(tables["values"])
        return StoreStats(
            path=str(environment.folder),
            model=model,
            encoding=encoding,
            adapters=values["entries"],
            documents=transaction.stat(tables["documents"])["entries"],
            side_entries=transaction.stat(tables["side"])["entries"],
            unowned_texts=transaction.stat(tables["unowned"])["entries"],
            generation=entries.generation(transaction, tables),
            value_bytes=values["psize"] * (values["branch_pages"] + values["leaf_pages"] + values["overflow_pages"]),
            file_bytes=file_bytes,
            map_bytes=map_bytes,
        )


def listed(environment: SharedEnvironment) -> list[StoredAdapter]:
    """List every adapter, by document, recipe and text, without decoding values."""
    found = []
    with environment.read() as (transaction, tables):
        for name, value in transaction.cursor(tables["values"]):
            text, recipe = bytes(name[:_HASH]), bytes(name[_HASH:])
            row = transaction.get(name, db=tables["records"])
            record = {} if row is None else entries.from_json(row)
            made = record.get("recipe")
            found.append(
                StoredAdapter(
                    text=text.hex(),
                    documents=tuple(ownership.owners_of(transaction, tables, text)),
                    recipe=str(made["name"]) if isinstance(made, dict) and "name" in made else recipe.hex()[:12],
                    bytes=len(value),
                    created=record.get("created"),
                )
            )
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
