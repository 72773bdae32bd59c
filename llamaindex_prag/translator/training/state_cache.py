"""An on-disk cache of base-model states that a training uses repeatedly.

The base model never changes while a translator learns, so its states of a passage, and of a question below the first
adapted layer, are the same in every epoch. Computing them only once saves most of a step. Several trainings on one
model can share a folder, even concurrently. Everything in it can be recomputed, so it can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import xxhash

from llamaindex_prag.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

    from rag_backbone.loading.causal_lm import CausalLM

_FORMATS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}
"""Supported data types, each with the integer type under which its bytes are stored."""
_HEADER = 16


class KeptStates:
    """Cache of hidden states by token sequence.

    Args:
        folder: Folder of the cache; created if it does not exist.
        about: What all states depend on: the base model and its data type.
        gigabytes: Maximum size in GiB. Once the cache is full, missing states are computed each time.

    Raises:
        StoreError: If the folder cannot be used.
    """

    def __init__(self, folder: str | Path, about: str, *, gigabytes: float = 8.0) -> None:
        import lmdb

        self.folder = Path(folder)
        self._about = about
        self._full = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Entries damaged by a crash fail their checksum and are recomputed, so syncing is not needed.
            self._env = lmdb.open(
                str(self.folder), map_size=int(gigabytes * 2**30), sync=False, metasync=False, readahead=False
            )
        except (OSError, lmdb.Error) as error:
            raise StoreError(f"states cannot be kept in {self.folder}: {error}") from error

    @classmethod
    def for_model(cls, folder: str | Path, lm: CausalLM, *, gigabytes: float = 8.0) -> Self:
        """Open the cache for one model in its data type."""
        return cls(folder, f"{lm.fingerprint} {str(lm.model.dtype).removeprefix('torch.')}", gigabytes=gigabytes)

    def of(
        self,
        kind: str,
        ids: Sequence[Sequence[int]],
        compute: Callable[[list[int]], Mapping[int, Tensor]],
        device: torch.device,
    ) -> list[Tensor]:
        """Return the states of token sequences in order; missing ones are computed and cached.

        Args:
            kind: Name of the kind of states.
            ids: The token sequences.
            compute: Computes states by index for the given indices; the first dimension is the tokens.
            device: Device of the returned states.

        Raises:
            StoreError: If the folder cannot be written.
        """
        names = [self._name(kind, tokens) for tokens in ids]
        with self._begin() as txn:
            found = {i: _read(txn.get(name), len(ids[i])) for i, name in enumerate(names)}
        if missing := [i for i, states in found.items() if states is None]:
            made = {i: states.detach().cpu().contiguous() for i, states in compute(missing).items()}
            found |= made
            self._keep({names[i]: _written(states) for i, states in made.items()})
        return [states.to(device) for _, states in sorted(found.items()) if states is not None]

    def _keep(self, values: Mapping[bytes, bytes]) -> None:
        import lmdb

        if self._full:
            return
        try:
            with self._begin(write=True) as txn:
                for name, value in values.items():
                    txn.put(name, value)
        except lmdb.MapFullError:
            self._full = True
        except lmdb.Error as error:
            raise StoreError(f"states cannot be kept in {self.folder}: {error}") from error

    def _begin(self, *, write: bool = False) -> Any:
        import lmdb

        try:
            return self._env.begin(write=write, buffers=True)
        except lmdb.MapResizedError:  # another training allowed a larger size
            self._env.set_mapsize(0)
            return self._env.begin(write=write, buffers=True)

    def _name(self, kind: str, ids: Sequence[int]) -> bytes:
        digest = hashlib.sha256(f"{self._about}/{kind}/".encode())
        digest.update(torch.tensor(ids, dtype=torch.int32).numpy().tobytes())
        return digest.digest()

    def close(self) -> None:
        """Close the cache."""
        self._env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        with contextlib.suppress(Exception):
            return f"KeptStates({str(self.folder)!r}, {self._env.stat()['entries']} sequences)"
        return f"KeptStates({str(self.folder)!r}, closed)"


def _written(states: Tensor) -> bytes:
    """Serialise states as checksum, data type, shape and values."""
    shape = [list(_FORMATS).index(states.dtype), states.ndim, *states.shape]
    content = torch.tensor(shape, dtype=torch.int32).numpy().tobytes()
    content += states.view(_FORMATS[states.dtype]).numpy().tobytes()
    return xxhash.xxh3_128_digest(content) + content


def _read(value: memoryview | None, tokens: int) -> Tensor | None:
    """Deserialise states; None if there are none, they are damaged, or their number of tokens differs."""
    if value is None or len(value) < _HEADER + 8 or xxhash.xxh3_128_digest(value[_HEADER:]) != bytes(value[:_HEADER]):
        return None
    number, dimensions = torch.frombuffer(bytearray(value[_HEADER : _HEADER + 8]), dtype=torch.int32).tolist()
    start = _HEADER + 8 + 4 * dimensions
    shape = torch.frombuffer(bytearray(value[_HEADER + 8 : start]), dtype=torch.int32).tolist()
    if shape[0] != tokens:
        return None
    values = torch.frombuffer(bytearray(value[start:]), dtype=list(_FORMATS)[number])
    return values.view(shape)
