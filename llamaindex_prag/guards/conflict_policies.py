"""Policies for documents that contradict each other.

    mean             average their updates, as for any documents, and report the contradiction
    score-weighted   weight all updates by the documents' retrieval scores
    latest           of two contradicting documents, use the one with the later date
    context          put both into the prompt, where the model can read what each says

Documents that contradict none are unaffected by the policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from llamaindex_prag.guards.conflicts import Conflicts

ConflictPolicy = Literal["mean", "score-weighted", "latest", "context"]
DATES = (
    "updated",
    "updated_at",
    "last_modified_date",
    "last_modified",
    "modified",
    "modified_at",
    "mod_date",
    "lastmod",
    "mtime",
    "published",
    "published_at",
    "publish_date",
    "pub_date",
    "date",
    "timestamp",
    "created",
    "created_at",
    "creation_date",
)
"""Metadata fields that tell a document's age: the first one that can be parsed is used, in any spelling
(`lastModified`, `Last-Modified`)."""

_MILLISECONDS = 10**11  # as seconds, this would be in the year 5138
_PDF = re.compile(r"D:(?P<moment>\d{14})(?P<zone>Z?|[+-]\d\d'?\d\d'?)")


@dataclass(frozen=True, slots=True)
class Resolution:
    """The documents to use, and how; each is identified by its index in `Conflicts.keys`."""

    in_weights: tuple[int, ...]
    """Documents used through their adapters."""
    in_prompt: Mapping[int, str] = field(default_factory=dict)
    """Documents whose text belongs in the prompt, with the reason."""
    left_out: Mapping[int, str] = field(default_factory=dict)
    """Documents that are not used, with the reason."""
    by_score: bool = False
    """Whether adapters are weighted by retrieval score."""


def known_policy(name: str) -> ConflictPolicy:
    """Check the name of a policy and return it.

    Raises:
        ConfigurationError: If there is no such policy.
    """
    if name not in get_args(ConflictPolicy):
        raise ConfigurationError(f"conflicts is {name!r}; known: {', '.join(get_args(ConflictPolicy))}")
    return name  # type: ignore[return-value]


def resolve(
    conflicts: Conflicts, policy: ConflictPolicy, *, dates: Sequence[datetime | None] | None = None
) -> Resolution:
    """Apply a policy.

    Args:
        conflicts: The measured conflicts.
        policy: The policy.
        dates: Date of each document, for `"latest"`; see `date_of`. A document without one counts as older than any
            with one; of two with the same date, both are used.
    """
    every = tuple(range(len(conflicts.keys)))
    concerned = conflicts.documents
    if not concerned or policy == "mean":
        return Resolution(every)
    if policy == "score-weighted":
        return Resolution(every, by_score=True)
    if policy == "context":
        against = {i: _against(conflicts, i) for i in concerned}
        return Resolution(tuple(i for i in every if i not in against), in_prompt=against)
    older = _older(conflicts, dates or [None] * len(every))
    return Resolution(tuple(i for i in every if i not in older), left_out=older)


def date_of(metadata: Mapping[str, Any]) -> datetime | None:
    """Return when a document was last changed, according to its metadata (`DATES`), or None if they do not say.

    Dates may be objects, seconds or milliseconds since 1970, ISO 8601 strings, the dates of e-mails and feeds
    (`"Tue, 03 Mar 2026 10:00:00 +0100"`) or those of PDF (`"D:20260303100000+01'00'"`).
    """
    fields: dict[str, Any] = {}
    for key, value in metadata.items():
        fields.setdefault(_folded(str(key)), value)
    return next((found for name in DATES if (found := _moment(fields.get(_folded(name)))) is not None), None)


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _moment(value: Any) -> datetime | None:
    try:
        if isinstance(value, datetime):
            return _aware(value)
        if isinstance(value, date):
            return _aware(datetime(value.year, value.month, value.day))  # noqa: DTZ001 - made aware there
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if abs(value) > _MILLISECONDS else value, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    if not isinstance(value, str):
        return None
    text = value.strip()
    pdf = _PDF.fullmatch(text)
    if pdf is not None:
        text = pdf["moment"] + ("+0000" if pdf["zone"] in ("", "Z") else pdf["zone"].replace("'", ""))
    for read in (datetime.fromisoformat, lambda t: datetime.strptime(t, "%Y%m%d%H%M%S%z"), parsedate_to_datetime):
        try:
            return _aware(read(text))
        except (ValueError, OverflowError):
            continue
    return None


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _against(conflicts: Conflicts, i: int) -> str:
    """Describe what a document says, and which other document says what against it."""
    one, other = next(pair for pair in conflicts.pairs if i in pair)
    j = other if i == one else one
    return f"it says {conflicts.answers[i]!r}, document {j + 1} says {conflicts.answers[j]!r}"


def _older(conflicts: Conflicts, dates: Sequence[datetime | None]) -> dict[int, str]:
    """Return documents contradicted by a later one, judged latest first: one that is left out rules out no other."""
    never = datetime.min.replace(tzinfo=UTC)
    age = [d or never for d in dates]
    older: dict[int, str] = {}
    for i in sorted(conflicts.documents, key=lambda n: age[n], reverse=True):
        rivals = [j for pair in conflicts.pairs if i in pair for j in pair if j != i]
        later = next((j for j in rivals if age[j] > age[i] and j not in older), None)
        if later is not None:
            older[i] = f"document {later + 1} is later and contradicts it: {_against(conflicts, i)}"
    return older
