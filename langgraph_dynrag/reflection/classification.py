"""The probabilities of a question's answer options, read from the model's next-token distribution.

Nothing is generated and nothing is parsed. Each option has surface forms (`Yes`, ` yes`, ...), and each form has token
ids. The distribution after the prompt divides the probability mass among the first tokens. If forms of different
options start with the same token, the position after that token decides, and so on until they diverge. An option that
is a prefix of another (`1` of `10`) gets the mass that does not continue to the other. Pure: the model is passed in as
a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise

from rag_backbone.errors import ConfigurationError

Forms = Mapping[str, Sequence[tuple[int, ...]]]
"""Maps each option to the token ids of its forms."""

NextLogprobs = Callable[[tuple[int, ...], Sequence[int]], Sequence[float]]
"""Function that, given the tokens after the prompt, returns the log-probabilities of some candidates for the next."""


def masses(options: Forms, next_logprobs: NextLogprobs) -> dict[str, float]:
    """Return the probability that the reply starts with each option. The sum is at most 1.

    Raises:
        ConfigurationError: If two options have a form in common, or a form has no tokens.
    """
    forms = sorted({(tuple(ids), name) for name, all_forms in options.items() for ids in all_forms})
    for (ids, name), (other_ids, other) in pairwise(forms):
        if ids == other_ids:
            raise ConfigurationError(f"the options {name!r} and {other!r} have the same tokens {list(ids)}")
    if any(not ids for ids, _ in forms):
        raise ConfigurationError("an option has a form without tokens")
    found = dict.fromkeys(options, 0.0)
    _descend((), 1.0, forms, next_logprobs, found)
    return found


def shares(options: Forms, next_logprobs: NextLogprobs) -> dict[str, float]:
    """Return `masses`, normalised over the options; uniform if none of them can occur."""
    found = masses(options, next_logprobs)
    total = math.fsum(found.values())
    return {name: mass / total if total > 0 else 1 / len(found) for name, mass in found.items()}


def surface_forms(word: str) -> tuple[str, ...]:
    """Return the forms in which a reply may start with a word."""
    ways = (word, word.lower(), word.upper())
    return tuple(dict.fromkeys(lead + way for way in ways for lead in ("", " ")))


def _descend(
    begun: tuple[int, ...],
    mass: float,
    forms: Sequence[tuple[tuple[int, ...], str]],
    next_logprobs: NextLogprobs,
    found: dict[str, float],
) -> None:
    """Divide the mass of replies that start with `begun` among forms, which belong to several options."""
    at = len(begun)
    going_on = [form for form in forms if len(form[0]) > at]
    groups = [(token, list(group)) for token, group in groupby(going_on, key=lambda form: form[0][at])]
    logprobs = next_logprobs(begun, [token for token, _ in groups])
    left = mass
    for (token, group), logprob in zip(groups, logprobs, strict=True):
        share = mass * math.exp(logprob)
        names = {name for _, name in group}
        if len(names) == 1:
            found[names.pop()] += share
        else:
            _descend((*begun, token), share, group, next_logprobs, found)
        left -= share
    for ids, name in forms:
        if len(ids) == at:
            found[name] += max(left, 0.0)
