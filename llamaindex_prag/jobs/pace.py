"""How fast adapters are made on this machine: measured by a short trial, kept, and corrected by every job.

    a trial      one passage: its teacher answers, a few of its sequences are trained; a local model begins its replies
    a job        what each stage took over what it was estimated to take multiplies what is kept

Where the machine is busier than it was, all of it is wrong by so much until the next job has corrected it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.augment.rules.augmenter import RuleAugmenter
from llamaindex_prag.augment.rules.questions import rule_questions
from llamaindex_prag.progress import JobStage
from llamaindex_prag.training.distillation import distilled
from llamaindex_prag.training.examples import TrainingDocument, prag_examples
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.training.trainer import Trainer
from rag_backbone.engine.requests import Request
from rag_backbone.loading.cache_folder import cache_root, write_json

if TYPE_CHECKING:
    from llamaindex_prag.adapter_model import LocalModel
    from llamaindex_prag.augment.choice import DocumentAugmenter

PROBE = (
    "The mill of Hollin Ferry was built in 1893 by the engineer Maud Arkwright on the eastern bank of the river Senn. "
    "Its wheel, 14 metres wide, was cast in Dunmore and drove six pairs of stones until the flood of 1931. The town "
    "bought the building in 1956 and opened a school for clockmakers in it, which moved to Larkhill 30 years later."
)
PROBE_TITLE = "The mill of Hollin Ferry"
_TOKENS = 16
"""That a trial writes of each reply."""
_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, on one machine, for one model and recipe."""

    train: float
    """A token of a passage's sequences, all epochs of the recipe included."""
    teach: float
    """A passage: the teacher's answers; 0 where there is no teacher."""
    sequence: float
    """Tokens of a training sequence without the passage; no seconds."""
    write: float | None = 0.0
    """A passage and token of reply, where a model writes the questions; 0 where none does, None: not known."""
    jobs: int = 0
    """By how many jobs it was corrected."""

    def corrected(self, planned: Mapping[JobStage, float], took: Mapping[JobStage, float]) -> Pace:
        """By what the stages of a job were estimated to take, and took."""
        factor = {s: took[s] / planned[s] if planned.get(s) else 1.0 for s in planned}
        write = self.write and self.write * factor.get("questions", 1.0)
        return replace(
            self,
            train=self.train * factor.get("training", 1.0),
            teach=self.teach * factor.get("teacher", 1.0),
            write=write,
            jobs=self.jobs + 1,
        )


def pace_of(model: LocalModel, augmenter: DocumentAugmenter, together: int) -> Pace:
    """What is kept of this machine, or a trial: some seconds.

    Args:
        model: With its recipe.
        augmenter: Who asks the questions.
        together: Passages that are trained together, as many as a trial on an accelerator takes.
    """
    path = _path(model, augmenter)
    try:
        return Pace(**json.loads(path.read_text("utf-8")))
    except (OSError, TypeError, ValueError):  # not there, or not ours
        found = _tried(model, augmenter, 1 if model.lm.model.device.type == "cpu" else together)
    _write(path, found)
    return found


def keep(model: LocalModel, augmenter: DocumentAugmenter, pace: Pace) -> None:
    """Keep what a job has shown; where the cache cannot be written, the next one is tried anew."""
    _write(_path(model, augmenter), pace)


def forget(model: LocalModel, augmenter: DocumentAugmenter) -> None:
    """Let the next estimate make a trial again."""
    _path(model, augmenter).unlink(missing_ok=True)


def training_seconds(model: LocalModel, lessons: Sequence[TrainingDocument]) -> float:
    """What training these by the model's recipe would take, from a part of its epochs."""
    recipe, engine = model.recipe, model.lm.engine
    few = min(recipe.epochs, 2)
    trainer = Trainer(engine, model.layout, recipe.changed(epochs=few))
    trained = took(lambda: list(trainer.train(lessons)))
    if recipe.epochs == few:
        return trained
    # The layers below the adapted ones are gone through once for all epochs: what that takes must not be multiplied.
    losses, examples = DocumentLosses(engine, model.layout), [e for lesson in lessons for e in lesson.examples]
    once = took(lambda: losses.lower_states(examples))
    return once + recipe.epochs * max(trained - once, 0.0) / few


def took(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def machine_key(model: LocalModel) -> str:
    """Of what the time that something takes depends on, as a part of a file's name."""
    import torch

    parts = [
        model.lm.fingerprint[:16],
        model.recipe.key[:16],
        str(model.lm.model.device.type),
        str(model.lm.model.dtype).removeprefix("torch."),
        str(torch.get_num_threads()),
    ]
    return "-".join(parts)


def _tried(model: LocalModel, augmenter: DocumentAugmenter, copies: int) -> Pace:
    engine, recipe = model.lm.engine, model.recipe
    engine.generate(Request(PROBE_TITLE, 2))  # what a first generation finds out is no part of the pace
    lessons: list[TrainingDocument] = []
    if recipe.objective == "distill":
        asked, answers = _questions(recipe.phrases or recipe.questions), recipe.with_passage + recipe.unrelated
        one = recipe.changed(with_passage=1, unrelated=0)
        teach = took(lambda: lessons.extend(distilled(engine, one, [(PROBE, asked)])))
        teach *= max(answers, 1) ** 0.5  # rows of a batch share a part of what a single one takes
        (lesson,) = lessons
    else:
        lesson, teach = TrainingDocument(PROBE, prag_examples(engine.tokenizer, PROBE, None, _questions(3))), 0.0
    # As many as one step takes, spread over the kinds; of single ones two, because the first is slower.
    few = min(max(recipe.batch_size, 2), len(lesson.examples))
    some = tuple(lesson.examples[i * len(lesson.examples) // few] for i in range(few))
    trained = training_seconds(model, [TrainingDocument(PROBE, some)] * copies)
    passage = len(engine.tokenizer(PROBE, add_special_tokens=False).input_ids)
    least = min(len(e.ids) for e in lesson.examples)
    bare = [len(e.ids) for e in lesson.examples if len(e.ids) < least + passage]
    return Pace(
        train=max(trained / (copies * sum(len(e.ids) for e in some)), 1e-9),
        teach=teach,
        sequence=sum(bare) / len(bare),
        write=_writing(augmenter) if recipe.questions else 0.0,
    )


def _questions(n: int) -> list[QA]:
    return rule_questions(PROBE, n, title=PROBE_TITLE)


def _writing(augmenter: DocumentAugmenter) -> float | None:
    if isinstance(augmenter, RuleAugmenter) or augmenter.by == "rules":
        return 0.0
    if not isinstance(augmenter, Augmenter):
        return None
    seconds = augmenter.trial([(PROBE_TITLE, PROBE)], _TOKENS)
    return None if seconds is None else max(seconds / _TOKENS, 1e-9)


def _path(model: LocalModel, augmenter: DocumentAugmenter) -> Path:
    writer = getattr(augmenter, "key", None) or type(augmenter).__name__
    return cache_root() / "pace" / f"{_VERSION}-{machine_key(model)}-{str(writer)[:16]}.json"


def _write(path: Path, pace: Pace) -> None:
    try:
        write_json(path, asdict(pace))
    except OSError:  # a cache that cannot be written costs the next job the same seconds
        return
