"""States of the base model that a training needs again and again, kept on disk.

The base model never changes while a translator learns, so what it makes of a passage, and of a question below the first
adapted layer, is the same in every round. Computed once, it is most of a step saved. Several trainings on one model may
share a folder, at the same time too. It holds nothing that cannot be computed again: remove it at will.
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
"""Number formats, and the whole numbers whose bytes are kept for them."""
_HEADER = 16


class KeptStates:
    """Tensors by what they are of.

    Args:
        folder: Made if it is not there.
        about: What all of them depend on: the base model and its number format.
        gigabytes: The most that is kept; after that what is missing is computed each time.

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
            # What an unclean end of the machine would damage is found by its checksum and computed again.
            self._env = lmdb.open(
                str(self.folder), map_size=int(gigabytes * 2**30), sync=False, metasync=False, readahead=False
            )
        except (OSError, lmdb.Error) as error:
            raise StoreError(f"states cannot be kept in {self.folder}: {error}") from error

    @classmethod
    def for_model(cls, folder: str | Path, lm: CausalLM, *, gigabytes: float = 8.0) -> Self:
        """Those of one model in its number format."""
        return cls(folder, f"{lm.fingerprint} {str(lm.model.dtype).removeprefix('torch.')}", gigabytes=gigabytes)

    def of(
        self,
        kind: str,
        ids: Sequence[Sequence[int]],
        compute: Callable[[list[int]], Mapping[int, Tensor]],
        device: torch.device,
    ) -> list[Tensor]:
        """What is kept of some token sequences; what is missing is computed and kept.

        Args:
            kind: Which states.
            ids: The sequences.
            compute: States of those whose numbers it is given, by number; the first dimension is that of the tokens.
            device: Where they are wanted.
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
        except lmdb.MapResizedError:  # another training may keep more
            self._env.set_mapsize(0)
            return self._env.begin(write=write, buffers=True)

    def _name(self, kind: str, ids: Sequence[int]) -> bytes:
        digest = hashlib.sha256(f"{self._about}/{kind}/".encode())
        digest.update(torch.tensor(ids, dtype=torch.int32).numpy().tobytes())
        return digest.digest()

    def close(self) -> None:
        """Give the folder back."""
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
    """Checksum, number format, shape, values."""
    shape = [list(_FORMATS).index(states.dtype), states.ndim, *states.shape]
    content = torch.tensor(shape, dtype=torch.int32).numpy().tobytes()
    content += states.view(_FORMATS[states.dtype]).numpy().tobytes()
    return xxhash.xxh3_128_digest(content) + content


def _read(value: memoryview | None, tokens: int) -> Tensor | None:
    """The states, unless there are none or they are damaged."""
    if value is None or len(value) < _HEADER + 8 or xxhash.xxh3_128_digest(value[_HEADER:]) != bytes(value[:_HEADER]):
        return None
    number, dimensions = torch.frombuffer(bytearray(value[_HEADER : _HEADER + 8]), dtype=torch.int32).tolist()
    start = _HEADER + 8 + 4 * dimensions
    shape = torch.frombuffer(bytearray(value[_HEADER + 8 : start]), dtype=torch.int32).tolist()
    if shape[0] != tokens:
        return None
    values = torch.frombuffer(bytearray(value[start:]), dtype=list(_FORMATS)[number])
    return values.view(shape)
