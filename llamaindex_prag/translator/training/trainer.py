"""Trains a translator end to end, from the effect of its adapters on the model's answers.

    passage -> states (model, no gradient) -> representation -> adapter -> loss of the passage's questions without it
                                              |------ gradients of the network ------|-- gradients of the factors --|

The second half is the same as in adapter training (`training.gradients`): the model yields each document's gradient
with respect to its factors, and the network is backpropagated from there. The loss is that of the `distill` recipe:
known answers are taught verbatim, all others by the model with the passage in its prompt (context distillation, Snell
et al. 2022). Trained adapters can be an additional target, or the only one as in DyPRAG (`imitation`).

Before that, a copy is trained on needles and has to pass a health check (`health`), because a translator that carries
no fact of a needle learns nothing from prose but the form of answers.

Every `validate_every` steps the state is saved, and also the network if it is the best so far on the validation
passages. A run interrupted at any moment resumes from the saved state, with the same result as an uninterrupted one.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.utils import clip_grad_norm_
from tqdm.auto import tqdm

from llamaindex_prag.errors import TranslatorError, TranslatorHealthError
from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.training.distillation import UNRELATED, taught
from llamaindex_prag.training.examples import Example
from llamaindex_prag.training.factors import DocumentFactors
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.translator.networks.shared import SharedNetwork
from llamaindex_prag.translator.training import saved_state as progress
from llamaindex_prag.translator.training.base_states import BaseStates
from llamaindex_prag.translator.training.corpus import Corpus, Lesson, drawn, questions_of, taught_lessons
from llamaindex_prag.translator.training.health import HEALTH_CHECK, Health, HealthCheck, check
from llamaindex_prag.translator.training.imitation import Imitation, with_adapters
from llamaindex_prag.translator.training.needles import needle_corpus
from llamaindex_prag.translator.training.plan import TrainingPlan
from llamaindex_prag.translator.training.saved_state import TrainingRun
from llamaindex_prag.translator.training.state_cache import KeptStates
from llamaindex_prag.translator.training.validation import Validation, ValidationLosses
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

    from llamaindex_prag.adapters.source import ReadableStore
    from llamaindex_prag.translator.translator import Translator

logger = logging.getLogger(__name__)
_SETTLED_BY = 256
"""Number of passages whose states initialise a new shared network."""


class TranslatorTrainer:
    """Trains a translator on a corpus, with its state saved beside the checkpoint.

    Args:
        translator: The translator, whose network is trained in place. A loaded translator is trained further.
        corpus: Lessons for training and validation.
        folder: Folder of the best network (a checkpoint); the state to resume from is in `<folder>.training`.
        plan: Training settings.
        adapters: Store of trained adapters of the translator's recipe, required if the plan uses them as a target.
            Training passages without an adapter are left out.
        tokens_at_once: Maximum number of padded tokens in one forward pass; None for the device's default.
        kept: Cache of the base model's states; None to compute them each time.
        health_check: The check on needles that a new training has to pass first, with its own states in
            `<folder>.needles` and `<folder>.needles.training`; None to train on the corpus without it.

    Raises:
        TranslatorError: If the folder holds the state of another training, or no passage has an adapter.
        ConfigurationError: If the plan needs adapters and none are given, or the reverse.
    """

    def __init__(
        self,
        translator: Translator,
        corpus: Corpus,
        folder: str | Path,
        plan: TrainingPlan | None = None,
        *,
        adapters: ReadableStore | None = None,
        tokens_at_once: int | None = None,
        kept: KeptStates | None = None,
        health_check: HealthCheck | None = HEALTH_CHECK,
    ) -> None:
        self.translator = translator
        self.plan = plan or TrainingPlan()
        self.folder = Path(folder)
        self.health: Health | None = None
        """Result of the health check, once it was made by this object."""
        self._health_check = health_check
        if self.plan.needs_adapters != (adapters is not None):
            raise ConfigurationError(
                f"objective={self.plan.objective!r} with mse={self.plan.mse:g} "
                + ("learns from trained adapters; give them" if adapters is None else "uses no adapters; give none")
            )
        self._corpus = corpus if adapters is None else with_adapters(corpus, translator, adapters)
        corpus = self._corpus
        self._losses = DocumentLosses(translator.lm.engine, translator.config.layout, tokens_at_once)
        self._states = BaseStates(translator, self._losses, kept)
        self._optimiser = self._adamw()
        self._imitation = None if adapters is None else Imitation(translator, adapters, self._losses, self.plan)
        self._identity = {
            "translator": translator.config.to_dict(),
            "plan": self.plan.to_dict(),
            "corpus": corpus.digest,
            "start": translator.fingerprint,
        }
        vars(translator).pop("fingerprint")  # it changes with every step
        self._started_from = dict(translator.record)
        self.run = self._restored()
        self._validation = Validation(translator, self._losses, corpus.validation, self.plan, self._states)
        self._unrelated = self._unrelated_examples()

    def train(self, *, over: Callable[[], bool] = lambda: False, show: bool = True) -> TrainingRun:
        """Train to the end or until `over` returns True, and save the state to resume from.

        Args:
            over: Called before each step; True stops the training.
            show: Whether to show a progress bar.

        Raises:
            TranslatorHealthError: If the health check failed. Nothing was trained on the corpus.
            TranslatorError: If the loss or its gradient is not finite. The last saved state is untouched, and the
                message says where it is.
        """
        run, plan = self.run, self.plan
        if not run.history:
            if self._health_check is not None and not self._checked(self._health_check, over=over, show=show):
                return run
            self._settle()
            self._judge([])
        recent: list[float] = []
        started = time.perf_counter()
        with tqdm(total=plan.steps, initial=run.steps, desc="translator", unit="step", disable=not show) as bar:
            while not run.ended and not over():
                recent.append(self._step(run.steps))
                run.steps += 1
                bar.update()
                if run.steps % plan.validate_every == 0 or run.steps == plan.steps:
                    run.seconds += time.perf_counter() - started
                    judged = self._judge(recent)
                    recent, started = [], time.perf_counter()
                    bar.set_postfix({k: f"{v:.3f}" for k, v in judged.to_dict().items() if v is not None})
        if recent:
            run.seconds += time.perf_counter() - started
            self._keep()
        return run

    def _checked(self, wanted: HealthCheck, *, over: Callable[[], bool], show: bool) -> bool:
        """Train a copy on needles and check it; return False if `over` ended that before the check."""
        given, plan = self.translator, self.plan
        copy = type(given)(given.lm, given.config, record=given.record)
        copy.network.load_state_dict(given.network.state_dict())
        if plan.needs_adapters:  # there are none of needles
            plan = TrainingPlan.of(given.config.kind).changed(seed=plan.seed)
        plan = plan.changed(
            steps=wanted.steps, documents=wanted.documents, questions=1, phrases=0, validation_questions=1, patience=0
        )
        needles = needle_corpus(wanted.train, wanted.unseen, seed=wanted.seed)
        folder = self.folder.with_name(self.folder.name + ".needles")
        trainer = TranslatorTrainer(copy, needles, folder, plan, health_check=None)
        if not trainer.train(over=over, show=show).ended:
            return False
        self.health = check(trainer._validation, wanted.exact_match)
        logger.info("%s", self.health.why)
        if not self.health.passed:
            raise TranslatorHealthError(
                f"the translator failed its health check and is not trained on prose. {self.health.why} Change the "
                "network or the plan, or train without the check: health_check=None, --no-health-check."
            )
        self.run.health = self.health.to_dict()
        return True

    def _adamw(self) -> torch.optim.AdamW:
        network, plan = self.translator.network, self.plan
        direct = network.direct if isinstance(network, SharedNetwork) else []
        others = [p for p in network.parameters() if all(p is not d for d in direct)]
        groups = [{"params": others, "times": 1.0}, {"params": direct, "times": plan.direct}]
        return torch.optim.AdamW(groups, lr=plan.learning_rate, weight_decay=plan.weight_decay, eps=plan.epsilon)

    def _settle(self) -> None:
        """Initialise a new shared network from the states of some passages of the corpus."""
        network = self.translator.network
        if isinstance(network, SharedNetwork) and not self._started_from:
            first = drawn(self._corpus.train, 0, min(_SETTLED_BY, len(self._corpus.train)), self.plan.seed)
            network.settle(self._states.of_passages([lesson.text for lesson in first]))

    def _step(self, step: int) -> float:
        plan, translator = self.plan, self.translator
        for group in self._optimiser.param_groups:
            group["lr"] = plan.rate(step) * group["times"]
        lessons = drawn(self._corpus.train, step, plan.documents, plan.seed)
        network = translator.network
        values = network.generate(network.pool(self._states.of_passages([x.text for x in lessons])))
        if self._imitation is not None and plan.objective == "imitate":
            loss, gradients = self._imitation.of_step(lessons, values, step)
        else:
            loss, gradients = self._distilled(lessons, values, step)
        if not math.isfinite(loss) or not torch.isfinite(gradients).all():
            raise TranslatorError(
                f"the loss of step {step} is {loss:g}, or its gradient is not finite: training has diverged. The "
                f"state of step {self._kept_at()} is in {self.folder}. Use a learning_rate below "
                f"{plan.learning_rate:g}."
            )
        values.backward(gradients / len(lessons))
        if plan.clip:
            clip_grad_norm_(network.parameters(), plan.clip)
        self._optimiser.step()
        self._optimiser.zero_grad()
        return loss

    def _distilled(self, lessons: Sequence[Lesson], values: Tensor, step: int) -> tuple[float, Tensor]:
        """Return the mean loss over the documents, and the gradient of the summed loss in the adapters' values."""
        config = self.translator.config
        engine = self.translator.lm.engine
        factors = engine.run(DocumentFactors, engine.model, config.layout, values, len(lessons), config.scale)
        asked = {i: e for i, e in enumerate(self._examples(lessons, step)) if e}
        found = self._losses.backward(factors, asked, self._states.below(asked))
        loss = sum(found.values()) / len(lessons)
        gradients = factors.gradients
        if self._imitation is not None:
            targets, _ = self._imitation.targets([lesson.text for lesson in lessons])
            distances, pull = self._imitation.distance(values, targets)
            loss += self.plan.mse * float(distances.mean())
            gradients = gradients + self.plan.mse * pull
        return loss, gradients

    def _examples(self, lessons: Sequence[Lesson], step: int) -> list[list[Example]]:
        """Build each lesson's sequences for this step."""
        plan, asked = self.plan, []
        rng = random.Random(f"{plan.seed}/{step}")  # noqa: S311
        for lesson in lessons:
            questions = questions_of(lesson, plan.phrases)
            asked.append((lesson.text, rng.sample(questions, min(plan.questions, len(questions)))))
        told = taught_lessons(self.translator, asked)
        others = min(plan.unrelated, len(self._unrelated))
        return [[*d.examples, *rng.sample(self._unrelated, others)] if d.examples else [] for d in told]

    def _unrelated_examples(self) -> list[Example]:
        """Build the sequences of the unrelated questions, taught by the model without any passage."""
        if not self.plan.unrelated:
            return []
        engine = self.translator.lm.engine
        return taught(engine, [prompt_ids(engine.tokenizer, question) for question in UNRELATED])

    def _judge(self, recent: Sequence[float]) -> ValidationLosses:
        """Validate, record the losses, and save the state and, if it is the best so far, the network."""
        run, plan = self.run, self.plan
        judged = self._validation.judge()
        entry = {"step": run.steps, "seconds": run.seconds, "train": sum(recent) / len(recent) if recent else None}
        run.history.append(entry | judged.to_dict())
        better = judged.own < run.best
        if better:
            run.best = judged.own
        since = [e["own"] > run.best for e in run.history]
        waited = len(since) - 1 - max(i for i, worse in enumerate(since) if not worse)
        if run.steps >= plan.steps:
            run.ended = f"all {plan.steps} steps are done"
        elif plan.patience and waited >= plan.patience:
            run.ended = f"{waited} validations in a row were no better"
        if better:
            told = {"plan": plan.to_dict(), "history": run.history, "seconds": run.seconds, "health": run.health}
            self.translator.record = told
            if self._started_from:
                self.translator.record["start"] = self._started_from
            vars(self.translator).pop("fingerprint", None)
            self.translator.save(self.folder)
        self._keep()
        return judged

    def _keep(self) -> None:
        progress.keep(self._state_folder, self.translator.network, self._optimiser, self._identity, self.run)

    def _restored(self) -> TrainingRun:
        kept = progress.restore(self._state_folder, self.translator.network, self._optimiser, self._identity)
        return TrainingRun(**kept) if kept else TrainingRun()

    def _kept_at(self) -> int:
        return int(self.run.history[-1]["step"]) if self.run.history else 0

    @property
    def _state_folder(self) -> Path:
        return self.folder.with_name(self.folder.name + ".training")

    def __repr__(self) -> str:
        return (
            f"TranslatorTrainer({self.translator!r}, {len(self._corpus.train)} passages, "
            f"step {self.run.steps} of {self.plan.steps})"
        )
