"""Select the questions about one passage from a model's replies; count what is dropped, and why.

    replies -> parsed -> about the passage, answer in its words -> no duplicates -> each style's share, then the surplus
            -> nothing left? questions by rule

Unlike in `augment.partial`, an answer that is not grounded in the passage is dropped, not kept as a last resort.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import chain, zip_longest

from llamaindex_prag.augment.augmentation import QA, Augmentation
from llamaindex_prag.augment.completion import CompletionResult
from llamaindex_prag.augment.grounding import PassageWords
from llamaindex_prag.augment.partial import Outcome
from llamaindex_prag.augment.qa_parsing import question_key, read_qas
from llamaindex_prag.augment.rules.augmenter import RuleAugmenter

_SHOWN = 60


def selected(title: str, text: str, replies: Mapping[str, CompletionResult], shares: Mapping[str, int]) -> Outcome:
    """Return a passage's questions.

    Args:
        title: The passage's title.
        text: The passage.
        replies: The model's reply for each style, or the error in its place.
        shares: Number of questions per style.
    """
    passage, notes = PassageWords(title, text), []
    dropped: Counter[str] = Counter()
    found: dict[str, list[QA]] = {style: [] for style in shares}
    seen: set[str] = set()
    written = 0
    for style, reply in replies.items():
        if isinstance(reply, Exception):
            notes.append(f"{style}: the model failed with {type(reply).__name__}: {reply}"[:300])
            continue
        asked = read_qas(reply, style=style, subject=title)
        if not asked:
            notes.append(f"{style}: no question could be parsed from the reply {reply.strip()[:_SHOWN]!r}")
        written += len(asked)
        for qa in asked:
            question = "" if qa is None else qa.question.removeprefix(f"About {title.strip()}: ")
            if qa is None:
                dropped["not usable (no short answer, or unclear without the passage)"] += 1
            elif (key := question_key(question)) in seen:
                dropped["duplicate"] += 1
            elif not (passage.knows(question) and passage.supports(question, qa.answer)):
                dropped["not grounded in the passage"] += 1
            else:
                seen.add(key)
                found[style].append(qa)
    if reasons := +dropped:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        notes.append(f"{reasons.total()} of {written} questions dropped: {told}")
    failed = any(isinstance(reply, Exception) for reply in replies.values())
    chosen = _chosen(found, shares)
    if not chosen:
        by_rule = RuleAugmenter(questions=sum(shares.values())).augment(title, text)
        notes += ["no question from the model was left: rules generated them", *by_rule.notes]
        chosen = list(by_rule.qas)
    return Outcome(Augmentation(None, tuple(chosen), tuple(notes)), failed)


def _chosen(found: Mapping[str, list[QA]], shares: Mapping[str, int]) -> list[QA]:
    """Return each style's share, filled up with what other styles have left, in turns."""
    own = [qa for style, share in shares.items() for qa in found[style][:share]]
    spare = chain.from_iterable(zip_longest(*(found[style][share:] for style, share in shares.items())))
    return [*own, *(qa for qa in spare if qa is not None)][: sum(shares.values())]
