"""The probabilities of a question's answer options, from the model's distribution at one position.

Nothing is generated and nothing is parsed. Each option has forms (`Yes`, ` yes`, ...), each form its token ids. The
distribution after the prompt divides the mass among first tokens; where forms of different options begin with the same
token, the position after that token decides, and so on until they part. An option that is the beginning of another one
(`1` of `10`) gets the mass that does not go on to the other. Pure: the model is a function that is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise

from rag_backbone.errors import ConfigurationError

Forms = Mapping[str, Sequence[tuple[int, ...]]]
"""By option, the token ids of its forms."""

NextLogprobs = Callable[[tuple[int, ...], Sequence[int]], Sequence[float]]
"""Given the tokens after the prompt, the log-probabilities of some tokens as the next one."""


def masses(options: Forms, next_logprobs: NextLogprobs) -> dict[str, float]:
    """The probability that the reply begins as each option does; they add up to at most 1.

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
    """`masses`, normalised over the options; uniform where none of them can occur."""
    found = masses(options, next_logprobs)
    total = math.fsum(found.values())
    return {name: mass / total if total > 0 else 1 / len(found) for name, mass in found.items()}


def surface_forms(word: str) -> tuple[str, ...]:
    """The ways in which a reply may begin with a word."""
    ways = (word, word.lower(), word.upper())
    return tuple(dict.fromkeys(lead + way for way in ways for lead in ("", " ")))


def _descend(
    begun: tuple[int, ...],
    mass: float,
    forms: Sequence[tuple[tuple[int, ...], str]],
    next_logprobs: NextLogprobs,
    found: dict[str, float],
) -> None:
    """Divide the mass of replies that begin with `begun` among forms, of which several options have one there."""
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
