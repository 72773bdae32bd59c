"""Turn documents into adapters and store each as it is trained: augment -> (distill) -> train -> store.

Adapters that the store already holds cost nothing. What cannot be done is refused before any work. Each adapter is
durable as soon as its group is trained, so a job that was killed continues where it stopped. `Parametrizer.estimate`
predicts the duration on this machine, and `progress` reports how far the job is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from llamaindex_prag.adapter_model import LocalModel
from llamaindex_prag.adapters.adapter import LARGEST_VALUE, Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.recipe import Recipe
from llamaindex_prag.augment.augmentation import QA, Augmentation
from llamaindex_prag.augment.choice import DocumentAugmenter, augmenter_of, refuse_unless_of_recipe
from llamaindex_prag.augment.rules.cloze import passage_question
from llamaindex_prag.augment.rules.questions import rule_questions
from llamaindex_prag.jobs.estimate import Estimate, estimated
from llamaindex_prag.jobs.pace import Pace, keep, pace_of
from llamaindex_prag.passages import Passage, settle_owners
from llamaindex_prag.progress import JobStage, Meter, Progress, Tick, bar
from llamaindex_prag.training.distillation import distilled
from llamaindex_prag.training.examples import TrainingDocument, prag_examples
from llamaindex_prag.training.trainer import Trained, Trainer
from llamaindex_prag.training.warm_up import start_of
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import clean_name

if TYPE_CHECKING:
    from llamaindex_prag.store.base import AdapterStore

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Report:
    """Result of a call of `Parametrizer.parametrize`."""

    trained: int = 0
    known: int = 0
    """Passages that already had an adapter."""
    skipped: int = 0
    """Passages without an adapter because there was nothing to train on or training diverged; `notes` says why."""
    removed: int = 0
    """Adapters removed because no document has their passage any more."""
    seconds: float = 0.0
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Notes on what did not go as planned, by text hash."""

    def __str__(self) -> str:
        counts = {"trained": self.trained, "known": self.known, "skipped": self.skipped, "removed": self.removed}
        told = [f"{n} {name}" for name, n in counts.items() if n or name in ("trained", "known")]
        return f"{', '.join(told)} ({self.seconds:.0f} s)"


@dataclass(frozen=True, slots=True)
class Result:
    """What training a passage gave."""

    text: str
    """Hash of the passage's text."""
    adapter: Adapter | None
    """None if there was nothing to train on or training diverged; `notes` says why."""
    record: dict[str, Any]
    """How the adapter was trained, as plain JSON data."""
    notes: tuple[str, ...] = ()


class Parametrizer:
    """Trains the adapters of passages.

    Args:
        model: Model, store and recipe.
        augmenter: Generates questions about a passage. None: as `Recipe.augmentation` says; for `prag` that is the
            model itself if it is capable of it, else rules (`augment.choice`).
        documents_at_once: Number of passages trained together.
        tokens_at_once: Maximum number of padded tokens in a forward pass; None: chosen for the device.
        augmentations: Existing augmentations by `text_hash`, used instead of generating new ones.

    Raises:
        ConfigurationError: If the augmenter's kind does not match the one in the recipe's key.
        AdapterError: If the store does not hold the adapter that the recipe's `start` names, or its layout differs.
    """

    def __init__(
        self,
        model: LocalModel,
        *,
        augmenter: DocumentAugmenter | None = None,
        documents_at_once: int = 8,
        tokens_at_once: int | None = None,
        augmentations: Mapping[str, Augmentation] | None = None,
    ) -> None:
        self.model = model
        self._store: AdapterStore = model.store  # type: ignore[assignment]
        if augmenter is not None:
            refuse_unless_of_recipe(augmenter, model.recipe)
        self.augmenter = augmenter or augmenter_of(model.lm, model.recipe, self._store, model.augmentation_asked)
        self._given = dict(augmentations or {})
        self._together = documents_at_once
        self._pace = Pace(train=0.0, teach=0.0, sequence=0.0)
        """This machine's pace; measured at the first estimate."""
        self._trainer = Trainer(
            model.lm.engine,
            model.layout,
            model.recipe,
            documents_at_once=documents_at_once,
            tokens_at_once=tokens_at_once,
            start=start_of(self._store, model.recipe, model.layout),
        )

    def estimate(self, passages: Iterable[Passage]) -> Estimate:
        """Estimate how long training the missing adapters takes; prints as "about 9 min for 40 documents (...)".

        The first call on a machine for a model and recipe runs a trial of some seconds. Only its measurements are kept;
        each job corrects them.

        Args:
            passages: As for `parametrize`. Those that already have adapters, or cannot be learnt, cost nothing.
        """
        distinct = {text_hash(p.text): p for p in passages}
        missing = self._missing(distinct)
        found = self._estimated({h: p for h, p in missing.items() if self._unlearnable(p) is None})
        return replace(found, known=len(distinct) - len(missing))

    def _estimated(self, missing: Mapping[str, Passage]) -> Estimate:
        if missing:
            self._pace = self._measured_pace()
        tokens = {h: self._tokens(p) for h, p in missing.items()}
        return estimated(self.model.recipe, tokens, 0, self._pace, self.augmenter)

    def _measured_pace(self) -> Pace:
        return pace_of(self.model, self.augmenter, self._together)

    def _correct_pace(self, meter: Meter) -> None:
        keep(self.model, self.augmenter, self._pace.corrected(meter.planned, meter.took))

    def parametrize(
        self,
        passages: Iterable[Passage],
        *,
        complete: bool = False,
        progress: bool = True,
        watch: Progress | None = None,
    ) -> Report:
        """Train the missing adapters.

        A passage that is blank or too long does not stop the others: it is skipped and logged at WARNING, and
        `Report.notes` says why.

        Args:
            passages: Passages with equal text are trained once.
            complete: Whether these are all passages of their documents. If so, adapters of passages that a document no
                longer has, and that no other document has, are removed.
            progress: Whether to show a progress bar, and to log the estimate at INFO.
            watch: Called with the job's progress: at the start and with every part, at most a few times per second.

        Raises:
            ConfigurationError: If the store is read-only and adapters are missing; nothing has been done then.
        """
        started, report = time.perf_counter(), Report()
        given = list(passages)
        distinct = self._learnable({text_hash(p.text): p for p in given}, report)
        owners: dict[str, set[str]] = {}
        for passage in given:
            if passage.document:
                owners.setdefault(text_hash(passage.text), set()).add(passage.document)
        missing = self._missing(distinct)
        report.known = len(distinct) - len(missing)
        if missing and getattr(self._store, "readonly", False):
            raise ConfigurationError(
                f"{len(missing)} passages have no adapter, and the store was opened with readonly=True, so nothing "
                "could be kept. Open it without readonly, or leave them in the prompt (missing='context')."
            )
        with ExitStack() as shown:
            watching = [] if watch is None else [watch]
            if progress and missing:
                watching.append(shown.enter_context(bar(len(missing))))
            estimate = self._estimated(missing) if watching else Estimate(len(missing), 0, 0.0, 0.0, 0.0)
            if watching and missing:
                logger.info("%s", estimate)
            job = Job(Meter(watching, estimate.by_stage, len(missing)), estimate)
            for found in self._results(list(missing.values()), job):
                if found.adapter is None:
                    self._skip(report, missing[found.text], found.notes)
                else:
                    kept_by = tuple(owners.get(found.text, ()))
                    self._store.put(self._key(found.text), found.adapter, found.record, owners=kept_by)
                    report.trained += 1
                    if found.notes:
                        report.notes[found.text] = found.notes
                job.meter.made()
            if watching and report.trained:
                self._correct_pace(job.meter)
        report.removed = settle_owners(self._store, given, complete=complete)
        report.seconds = time.perf_counter() - started
        return report

    def results(self, passages: Sequence[Passage]) -> Iterator[Result]:
        """Train passages and yield the results; only augmentations are kept in the store.

        Args:
            passages: Passages of different texts, none of them blank or too long.
        """
        return self._results(passages, Job(Meter([], {}, len(passages)), Estimate(len(passages), 0, 0.0, 0.0, 0.0)))

    def _results(self, passages: Sequence[Passage], job: Job) -> Iterator[Result]:
        for group in groups_of(passages, self._together):
            yield from self._group(group, job)

    def lessons(self, passages: Sequence[Passage]) -> list[TrainingDocument]:
        """Return what would be trained on. Trains nothing; only augmentations are kept."""
        return self._documents(passages, self._augmented(passages))

    def _group(self, passages: Sequence[Passage], job: Job) -> Iterator[Result]:
        job.begin(passages)
        with job.stage("questions", passages) as advance:
            augmented = self._augmented(passages, advance)
        with job.stage("teacher", passages) as advance:
            documents = self._documents(passages, augmented, advance)
        notes = {digest: augmentation.notes for digest, augmentation in augmented.items()}
        ready = []
        for document in documents:
            digest, limit = text_hash(document.text), self.model.recipe.max_tokens
            kept = tuple(e for e in document.examples if len(e.ids) <= limit)
            if left_out := len(document.examples) - len(kept):
                notes[digest] += (f"{left_out} sequences of more than {limit} tokens left out",)
            if kept:
                ready.append(replace(document, examples=kept))
            else:
                yield Result(digest, None, {}, (*notes[digest], "nothing to train on: no adapter was trained"))
        with job.stage("training", passages) as advance:
            for trained in self._trainer.train(ready, advance):
                digest = text_hash(trained.document.text)
                largest = float(np.abs(trained.adapter.buffer).max())
                if largest <= LARGEST_VALUE:
                    record = self._record(digest, trained, augmented[digest], notes[digest])
                    yield Result(digest, trained.adapter, record, notes[digest])
                else:  # also if the value is NaN; the group's other adapters are unaffected
                    why = f"training diverged (largest value {largest:g}), no adapter was kept: lower the learning_rate"
                    yield Result(digest, None, {}, (*notes[digest], why))

    def _documents(
        self, passages: Sequence[Passage], augmented: dict[str, Augmentation], advance: Tick | None = None
    ) -> list[TrainingDocument]:
        engine, recipe = self.model.lm.engine, self.model.recipe
        asked = []
        for passage in passages:
            text, found = passage.text.strip(), augmented[text_hash(passage.text)]
            by_rule = _phrases(passage, recipe) if recipe.questions else []
            asked.append((text, found.rewrite, found.grounded, [*found.qas, *by_rule]))
        if recipe.objective == "distill":
            return distilled(engine, recipe, [(text, qas) for text, _, _, qas in asked], advance=advance)
        return [
            TrainingDocument(text, prag_examples(engine.tokenizer, text, rewrite, grounded))
            for text, rewrite, grounded, _ in asked
        ]

    def _augmented(self, passages: Sequence[Passage], advance: Tick | None = None) -> dict[str, Augmentation]:
        found = {text_hash(p.text): self._given.get(text_hash(p.text)) for p in passages}
        if not self.model.recipe.questions:
            found |= {
                text_hash(p.text): _by_rule(p, self.model.recipe) for p in passages if not found[text_hash(p.text)]
            }
        asked = [(p.title, p.text) for p in passages if found[text_hash(p.text)] is None]
        made = self.augmenter.augment_all(asked, progress=False, advance=advance) if asked else []
        found |= {text_hash(text): augmentation for (_, text), augmentation in zip(asked, made, strict=True)}
        return {digest: augmentation for digest, augmentation in found.items() if augmentation is not None}

    def _record(
        self, digest: str, trained: Trained, augmentation: Augmentation, notes: Sequence[str]
    ) -> dict[str, Any]:
        recipe = self.model.recipe
        writer = "given" if digest in self._given else repr(self.augmenter) if recipe.questions else "rules"
        return {
            "recipe": recipe.to_dict(),
            "augmentation": {
                "by": writer,
                "questions": augmentation.sources,
                "left_out": trained.document.left_out,
                "rewrite": augmentation.rewrite is not None,
            },
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "steps": trained.steps,
            "examples": len(trained.document.examples),
            "first_loss": trained.first_loss,
            "last_loss": trained.last_loss,
            "notes": list(notes),
        }

    def _learnable(self, distinct: Mapping[str, Passage], report: Report) -> dict[str, Passage]:
        """Return the passages that can be learnt, and skip the others."""
        found = {}
        for digest, passage in distinct.items():
            if reason := self._unlearnable(passage):
                self._skip(report, passage, (reason,))
            else:
                found[digest] = passage
        return found

    @staticmethod
    def _skip(report: Report, passage: Passage, notes: tuple[str, ...]) -> None:
        report.skipped += 1
        report.notes[text_hash(passage.text)] = notes
        logger.warning("a passage of %s has no adapter: %s", name_of(passage), "; ".join(notes))

    def _unlearnable(self, passage: Passage) -> str | None:
        """Return why a passage cannot be learnt, or None if it can."""
        if not passage.text.strip():
            return "it is blank"
        limit = min(self.model.recipe.max_tokens, self.model.lm.context_window) - 128  # question, answer, template
        tokens = self._tokens(passage)
        if tokens > limit:
            return (
                f"the passage {passage.text.strip()[:60]!r} has {tokens} tokens; together with a question at most "
                f"{limit} can be learnt at once. Split it into passages first."
            )
        return None

    def _tokens(self, passage: Passage) -> int:
        return len(self.model.lm.tokenizer(passage.text, add_special_tokens=False).input_ids)

    def _missing(self, distinct: Mapping[str, Passage]) -> dict[str, Passage]:
        return {digest: p for digest, p in distinct.items() if self._key(digest) not in self._store}

    def _key(self, digest: str) -> AdapterKey:
        return AdapterKey(self.model.lm.fingerprint, self.model.recipe.key, digest)

    def __repr__(self) -> str:
        return f"Parametrizer({self.model!r}, {self.augmenter!r})"


@dataclass(frozen=True, slots=True)
class Job:
    """A job's meter, and the estimated duration of each of its parts."""

    meter: Meter
    estimate: Estimate

    def begin(self, passages: Sequence[Passage]) -> None:
        """Set the passages that are trained next."""
        self.meter.begin([name_of(p) for p in passages])

    def stage(self, stage: JobStage, passages: Sequence[Passage]) -> AbstractContextManager[Tick]:
        """Enter a stage of these passages; yields a callback for its finished fractions."""
        of = [self.estimate.stages.get(text_hash(p.text), {}) for p in passages]
        return self.meter.stage(stage, sum(stages.get(stage, 0.0) for stages in of))


def name_of(passage: Passage) -> str:
    """Return a passage's name in messages: its document, else its title, else the beginning of its hash."""
    return clean_name(passage.document or passage.title or text_hash(passage.text)[:12])


def _phrases(passage: Passage, recipe: Recipe) -> list[QA]:
    return rule_questions(passage.text.strip(), recipe.candidates, title=passage.title, seed=recipe.seed)


def _by_rule(passage: Passage, recipe: Recipe) -> Augmentation:
    """Build an augmentation without a model: the phrases, or the passage itself if it has none."""
    found = _phrases(passage, recipe)
    return Augmentation(None, tuple(found or [passage_question(passage.title, passage.text)]))


def groups_of(passages: Sequence[Passage], size: int) -> Iterator[list[Passage]]:
    """Yield groups of at most `size` passages of similar length, the shortest passages first."""
    ordered = sorted(passages, key=lambda p: len(p.text))
    for i in range(0, len(ordered), size):
        yield ordered[i : i + size]
