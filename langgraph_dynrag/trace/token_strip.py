"""A draft's tokens as a strip: a bar for each token's score, a line for the threshold, and the same as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph_dynrag.trace.draft_trace import DraftTrace, TokenTrace
from langgraph_dynrag.trace.markup import Allowance, counted, fold, number, plain
from langgraph_dynrag.trace.plain_words import fires_below, score_name

NO_SCORES = '<p class="meta">The model reported no scores for its tokens.</p>'
_FATES = {"accepted": "kept", "discarded": "discarded", "looked ahead": "drafted beyond"}
_STYLES = {"accepted": "", "discarded": "gone", "looked ahead": "ahead"}


@dataclass(frozen=True, slots=True)
class _Scale:
    """The scores that a strip shows, and their range."""

    name: str
    values: tuple[float | None, ...]
    threshold: float | None
    below: bool
    low: float
    high: float

    def height(self, value: float) -> int:
        """Return the height of a bar in percent."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 1.0
        return round(100 * min(1.0, max(0.0, share)))

    def crosses(self, value: float | None) -> bool:
        """Return whether a score is on the side of the threshold at which the trigger fires."""
        if value is None or self.threshold is None:
            return False
        return value < self.threshold if self.below else value > self.threshold


def token_strip(draft: DraftTrace, allowance: Allowance, *, table: bool = True) -> str:
    """Return a draft's tokens with their scores as HTML; without any signal, a note that says so.

    Args:
        draft: The draft.
        allowance: Tokens that the page still has room for.
        table: Whether to add the same as a table.
    """
    tokens = draft.tokens
    if not tokens:
        return ""
    scale = _scale(draft)
    if scale is None:
        return NO_SCORES
    if not allowance.take(len(tokens)):
        told = f"The scores of {counted(len(tokens), 'token')} are left out here; the trace has them."
        return f'<p class="meta">{told}</p>'
    line = "" if scale.threshold is None else f' style="--t:{scale.height(scale.threshold)}%"'
    cells = "".join(_cell(token, value, scale) for token, value in zip(tokens, scale.values, strict=True))
    shown = _table(tokens, scale) if table else ""
    strip = f'<div class="strip{"" if line else " free"}" dir="auto"{line}>{cells}</div>'
    return f'<figure>{strip}<figcaption class="meta">{_caption(scale)}</figcaption>{shown}</figure>'


def _scale(draft: DraftTrace) -> _Scale | None:
    verdict: Mapping[str, Any] = draft.verdict or {}
    scores = tuple(token.score for token in draft.tokens)
    known = [score for score in scores if score is not None]
    threshold = verdict.get("threshold")
    if known and threshold is not None:
        probabilities = verdict.get("trigger") == "token probability"
        low = min(0.0, threshold, *known)
        high = 1.0 if probabilities else max(threshold, *known)
        return _Scale(score_name(verdict), scores, threshold, fires_below(verdict), low, high)
    values = tuple(token.probability for token in draft.tokens)
    return None if all(value is None for value in values) else _Scale("probability", values, None, False, 0.0, 1.0)


def _cell(token: TokenTrace, value: float | None, scale: _Scale) -> str:
    names = [
        _STYLES[token.fate],
        "hit" if scale.crosses(value) else "",
        "fired" if token.fired and scale.threshold is not None else "",
    ]
    named = " ".join(name for name in names if name)
    style = f' class="{named}"' if named else ""
    bar = "" if value is None else f' style="--h:{scale.height(value)}%" title="{number(value)}"'
    return f"<i{style}{bar}>{_shown(token.text)}</i>"


def _shown(text: str) -> str:
    """Return a token as it can be seen: line ends by their escapes, and a space for a part of a character."""
    return plain(text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")) or "\u00a0"


def _caption(scale: _Scale) -> str:
    name = plain(scale.name[0].upper() + scale.name[1:])
    told = f"{name} of each token, from {number(scale.low)} to {number(scale.high)}"
    if scale.threshold is None:
        return f"{told}."
    side = "below" if scale.below else "above"
    return f"{told}. The line is the threshold {number(scale.threshold)}; striped bars are {side} it."


def _table(tokens: Sequence[TokenTrace], scale: _Scale) -> str:
    plain_probability = scale.name == "probability"
    names = ["probability", "entropy"] if plain_probability else [scale.name, "probability", "entropy"]
    head = "".join(f'<th scope="col">{plain(name)}</th>' for name in ("token", *names, "what happened"))
    rows = []
    for token, value in zip(tokens, scale.values, strict=True):
        values = [token.probability, token.entropy] if plain_probability else [value, token.probability, token.entropy]
        cells = "".join(f"<td>{'' if v is None else number(v)}</td>" for v in values)
        fate = _FATES[token.fate] + (", search triggered" if token.fired else "")
        rows.append(f'<tr><th scope="row" dir="auto">{_shown(token.text)}</th>{cells}<td>{fate}</td></tr>')
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return fold("These scores as a table", f'<div class="scroll" tabindex="0">{body}</div>', style="small")
