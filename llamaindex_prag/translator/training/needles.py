"""Needles: sentences that state an invented fact, such as "The code of Marvane is 4711.".

A model can neither know nor guess a needle's code, so a translator answers the question about an unseen needle only if
its adapter carries what the sentence says. Names and codes are drawn by seed, and none occurs twice.
"""

from __future__ import annotations

import random

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.translator.training.corpus import Corpus, Lesson

_STARTS = ("Bel", "Cor", "Dra", "Fen", "Gal", "Hol", "Jor", "Kel", "Mar", "Nor", "Pel", "Ros", "Sul", "Tar")
_MIDDLES = ("", "a", "da", "e", "ga", "i", "la", "me", "no", "o", "ri", "sa", "to", "u", "va", "zi")
_ENDS = ("bor", "cas", "dell", "fin", "gard", "hem", "kin", "lune", "mond", "nix", "rune", "sten", "vane", "wick")
_CODES = range(1000, 10_000)
MOST = len(_STARTS) * len(_MIDDLES) * len(_ENDS)
"""Maximum number of needles, which is the number of different names."""


def needle_corpus(train: int, unseen: int, *, seed: int = 0) -> Corpus:
    """Return needles to train on, and as validation passages others with different names and codes.

    Args:
        train: Number of needles to train on.
        unseen: Number of needles for validation; both together at most `MOST`.
        seed: Seed of names and codes.
    """
    rng = random.Random(seed)  # noqa: S311
    names = [a + b + c for a in _STARTS for b in _MIDDLES for c in _ENDS]
    found = tuple(
        Lesson(f"The code of {name} is {code}.", name, (QA(f"What is the code of {name}?", str(code)),))
        for name, code in zip(rng.sample(names, train + unseen), rng.sample(_CODES, train + unseen), strict=True)
    )
    return Corpus(found[:train], found[train:])
