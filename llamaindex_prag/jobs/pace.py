"""How fast this machine trains adapters: measured by a short trial, cached, and corrected by every job.

    a trial      one passage: its teacher answers, some of its sequences are trained; a local model begins its replies
    a job        the cached pace of each stage is multiplied by its actual over its estimated duration

If the machine is busier than it was during the measurement, estimates are off by that factor until a job corrects it.
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
from llamaindex_prag.training.consistency import consistent
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
"""Number of tokens of each reply that a trial generates."""
_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Pace:
    """Durations on one machine, for one model and recipe, in seconds unless stated otherwise."""

    train: float
    """Seconds per token of a passage's sequences, including all epochs of the recipe."""
    teach: float
    """Seconds per passage for the teacher's answers; 0 without a teacher."""
    sequence: float
    """Mean number of tokens of a training sequence, without the passage."""
    write: float | None = 0.0
    """Seconds per passage and reply token for questions written by a model; 0 without one, None: unknown."""
    jobs: int = 0
    """Number of jobs that have corrected the pace."""

    def corrected(self, planned: Mapping[JobStage, float], took: Mapping[JobStage, float]) -> Pace:
        """Return the pace corrected by the estimated and the actual seconds of a job's stages."""
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
    """Return this machine's cached pace, or measure it in a trial of some seconds.

    Args:
        model: The model with its recipe.
        augmenter: Generates the questions.
        together: Number of passages trained together, which a trial on an accelerator uses as well.
    """
    path = _path(model, augmenter)
    try:
        return Pace(**json.loads(path.read_text("utf-8")))
    except (OSError, TypeError, ValueError):  # missing, or in another format
        found = _tried(model, augmenter, 1 if model.lm.model.device.type == "cpu" else together)
    _write(path, found)
    return found


def keep(model: LocalModel, augmenter: DocumentAugmenter, pace: Pace) -> None:
    """Cache a job's corrected pace; if the cache cannot be written, the next estimate runs a trial again."""
    _write(_path(model, augmenter), pace)


def forget(model: LocalModel, augmenter: DocumentAugmenter) -> None:
    """Delete the cached pace, so that the next estimate runs a trial again."""
    _path(model, augmenter).unlink(missing_ok=True)


def training_seconds(model: LocalModel, lessons: Sequence[TrainingDocument]) -> float:
    """Return how long training these documents with the model's recipe would take, extrapolated from a few epochs."""
    recipe, engine = model.recipe, model.lm.engine
    few = min(recipe.epochs, 2)
    # Finding the null space takes some seconds once per job, whatever the number of documents.
    trainer = Trainer(engine, model.layout, recipe.changed(epochs=few, null_space=None))
    trained = took(lambda: list(trainer.train(lessons)))
    if recipe.epochs == few:
        return trained
    # The layers below the adapted ones run once for all epochs, so their share must not be multiplied.
    losses = DocumentLosses(engine, model.layout, acts_from=recipe.acts_from)
    examples = [e for lesson in lessons for e in lesson.examples]
    once = took(lambda: losses.lower_states(examples))
    return once + recipe.epochs * max(trained - once, 0.0) / few


def took(function: Callable[[], Any]) -> float:
    """Return the duration of one call in seconds."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def machine_key(model: LocalModel) -> str:
    """Return what durations depend on, as part of a file name: model, recipe, device, dtype and threads."""
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
    engine.generate(Request(PROBE_TITLE, 2))  # one-off costs of a first generation are not part of the pace
    lessons: list[TrainingDocument] = []
    if recipe.objective == "distill":
        asked = _questions(recipe.candidates or recipe.questions)
        answers = recipe.with_passage + recipe.unrelated + recipe.silence
        one = recipe.changed(with_passage=1, unrelated=0, silence=0, consistency=None)
        kept: list[tuple[str, list[QA]]] = []
        tested = took(lambda: kept.extend(consistent(engine, recipe, [(PROBE, asked)])))
        teach = took(lambda: lessons.extend(distilled(engine, one, kept)))
        teach *= max(answers, 1) ** 0.5  # sequences of a batch share part of the cost of a single one
        teach += tested
        (lesson,) = lessons
    else:
        lesson, teach = TrainingDocument(PROBE, prag_examples(engine.tokenizer, PROBE, None, _questions(3))), 0.0
    # As many examples as one step takes, spread over the kinds; at least two, because the first one is slower.
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
    except OSError:  # without a cache, the next job runs the trial again
        return
