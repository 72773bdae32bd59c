"""Cache of computed prefixes: a new prompt reuses the longest one that it begins with.

Prefixes come from finished sequences and from generations that are still in progress. An entry belongs to one adapter
key, because the same tokens have other keys and values under other parameters; adapters that act from the answer on
share the part before it with the base model. When the memory limit is reached, the
least recently used entries are evicted first. Knows nothing of the model.
"""

from __future__ import annotations

from collections.abc import Hashable
from weakref import WeakKeyDictionary

from rag_backbone.engine.adapters import tokens_in_common
from rag_backbone.engine.kv_cache import SequenceCache


class PrefixCache:
    """Sequence caches by adapter key and token ids, up to a limit in bytes.

    Not thread-safe: only the model thread may use it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: list[tuple[Hashable, SequenceCache]] = []  # least recently used first
        self._in_use: WeakKeyDictionary[SequenceCache, Hashable] = WeakKeyDictionary()

    def take(self, key: Hashable, ids: list[int]) -> SequenceCache | None:
        """Return a cache of the longest known prefix of `ids`, for the caller to continue.

        At least the last id is left out, because its forward pass yields the next token's logits. The entry remains
        available to other sequences: the shared part is copied when it is continued. An entry that cannot be copied is
        removed and handed over.
        """
        best, length = self._longest(key, ids)
        if best is None:
            return None
        at = next((i for i, (_, entry) in enumerate(self._entries) if entry is best), None)
        if at is not None:
            used = self._entries.pop(at)
            if not best.can_roll_back:
                return best
            self._entries.append(used)
        return best.copy(length)

    def known(self, key: Hashable, ids: list[int]) -> int:
        """Return how many tokens `take` would find."""
        return self._longest(key, ids)[1]

    def _longest(self, key: Hashable, ids: list[int]) -> tuple[SequenceCache | None, int]:
        best, length = None, 0
        for entry_key, entry in [*self._entries, *((key, entry) for entry, key in self._in_use.items())]:
            limit = min(len(ids) - 1, tokens_in_common(entry_key, key))
            if limit <= length:
                continue
            common = common_prefix(entry.ids, ids, limit=int(limit))
            usable = common == len(entry.ids) or entry.can_roll_back
            if usable and common > length:
                best, length = entry, common
        return best, length

    def share(self, key: Hashable, sequence: SequenceCache) -> None:
        """Make a sequence in progress available to others until it is `put` or garbage-collected.

        Its owner must not change it concurrently with `take`; both run in the model thread.
        """
        if sequence.can_roll_back:
            self._in_use[sequence] = key

    def put(self, key: Hashable, sequence: SequenceCache) -> None:
        """Keep a sequence, replacing entries that it continues."""
        self._in_use.pop(sequence, None)
        if not sequence.ids or sequence.nbytes > self.max_bytes:
            return
        kept = []
        for entry_key, entry in self._entries:
            if entry_key == key:
                common = common_prefix(entry.ids, sequence.ids)
                if common == len(sequence.ids) and entry.can_roll_back:
                    return  # an existing entry covers it
                if common == len(entry.ids) and sequence.can_roll_back:
                    continue
            kept.append((entry_key, entry))
        self._entries = [*kept, (key, sequence)]
        while sum(entry.nbytes for _, entry in self._entries) > self.max_bytes:
            self._entries.pop(0)

    def entries(self) -> list[tuple[Hashable, SequenceCache]]:
        """Return the kept entries, least recently used first, to be `put` again; sequences in use are not included."""
        return list(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._entries = []
        self._in_use = WeakKeyDictionary()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(entry.nbytes for _, entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def common_prefix(a: list[int], b: list[int], limit: int | None = None) -> int:
    """Return the number of leading ids that `a` and `b` share, at most `limit`."""
    end = min(len(a), len(b)) if limit is None else min(len(a), len(b), limit)
    if a[:end] == b[:end]:  # usually a continuation: one comparison in C
        return end
    low = 0  # ids known to be shared; slices are compared in C, single ids would be compared in Python
    while end - low > 1:
        middle = (low + end) // 2
        low, end = (middle, end) if a[low:middle] == b[low:middle] else (low, middle)
    return low
