"""Collects the replies about one document and selects its final questions.

    replies -> each style's share, grounded answers first -> cloze questions -> the passage itself

Knows the document and the replies, but neither models nor prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import zip_longest

from llamaindex_prag.augment.augmentation import QA, Augmentation
from llamaindex_prag.augment.grounding import PassageWords
from llamaindex_prag.augment.qa_parsing import parse_qas, question_key
from llamaindex_prag.augment.rewriting import REWRITE, faithful_rewrite
from llamaindex_prag.augment.rules.cloze import cloze_questions, passage_question


@dataclass(frozen=True, slots=True)
class Outcome:
    """An augmentation, and whether it may be cached."""

    augmentation: Augmentation
    failed: bool
    """Whether the model raised and did not recover; a later attempt may give a better result."""


@dataclass(slots=True)
class PartialAugmentation:
    """Everything collected for one document so far."""

    title: str
    text: str
    passage: PassageWords
    """Words of title and text, for checking answers."""
    qas: dict[str, list[QA]] = field(default_factory=dict)
    """Questions by style."""
    rewrite: str | None = None
    errors: dict[str, Exception] = field(default_factory=dict)
    """The last error of each style whose prompt failed."""

    def take(self, kind: str, reply: str | Exception) -> None:
        """Parse a reply to the prompt of a style or of the rewrite."""
        self.errors.pop(kind, None)
        if isinstance(reply, Exception):
            self.errors[kind] = reply
        elif kind == REWRITE:
            self.rewrite = faithful_rewrite(reply, self.text)
        else:
            # Small models also ask about the task, or about something that is not in the document.
            parsed = parse_qas(reply, style=kind, subject=self.title)
            about = [q for q in parsed if self.passage.knows(q.question.removeprefix(f"About {self.title.strip()}: "))]
            self.qas[kind] = [replace(q, answer_grounded=self.passage.supports(q.question, q.answer)) for q in about]

    def lacks(self, kind: str) -> bool:
        """Return whether nothing has been found for this style or the rewrite."""
        return self.rewrite is None if kind == REWRITE else not self.qas.get(kind)

    def finished(self, wanted: dict[str, int], gave_up: list[str], *, with_model: bool) -> Outcome:
        """Select the questions, and fill up with questions that need no model.

        Args:
            wanted: Number of questions per style.
            gave_up: Styles (or the rewrite) for which nothing was found.
            with_model: Whether a model was used at all.
        """
        notes = [f"{kind}: {self._why(kind)}" for kind in gave_up]
        total = sum(wanted.values())
        chosen = self._chosen(wanted)
        if len(chosen) < total:
            cloze = cloze_questions(self.text, total, title=self.title)
            asked = {question_key(q.question) for q in chosen}
            extra = [q for q in cloze if question_key(q.question) not in asked][: total - len(chosen)]
            if with_model:
                notes.append(f"{len(chosen)} of {total} questions from the model, {len(extra)} cloze questions added")
            chosen += extra
        if not chosen:
            notes.append("neither the model nor the cloze rules gave a question: the passage itself is the answer")
            chosen = [passage_question(self.title, self.text)]
        return Outcome(Augmentation(self.rewrite, tuple(chosen), tuple(notes)), bool(self.errors))

    def _chosen(self, wanted: dict[str, int]) -> list[QA]:
        """Return each style's share of grounded questions, then the surplus of other styles, then ungrounded ones."""
        found: dict[str, QA] = {}
        for grounded in (True, False):
            lists = {s: [q for q in self.qas.get(s, []) if q.answer_grounded is grounded] for s in wanted}
            own = [q for s, n in wanted.items() for q in lists[s][:n]]
            # Yes/no questions never exceed their share: too many of them turn answers into coin tosses.
            spare = [q for row in zip_longest(*(lists[s][n:] for s, n in wanted.items() if s != "yes_no")) for q in row]
            for qa in (*own, *(q for q in spare if q is not None)):
                if len(found) < sum(wanted.values()):
                    found.setdefault(question_key(qa.question), qa)
        return list(found.values())

    def _why(self, kind: str) -> str:
        if (error := self.errors.get(kind)) is not None:
            return f"the model failed with {type(error).__name__}: {error}"[:300]
        return "no faithful rewrite in the reply" if kind == REWRITE else "no usable question in the reply"
