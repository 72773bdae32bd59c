"""Lessons about bridges, a short plan, and a trainer without the health check."""

from functools import partial

from llamaindex_prag.adapters.recipe import DISTILL
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.training.corpus import Lesson
from llamaindex_prag.translator.training.plan import TrainingPlan
from llamaindex_prag.translator.training.trainer import TranslatorTrainer
from llamaindex_prag.translator.translator import Translator

NAMES = ["Ada", "Bo", "Cy", "Di", "Eve", "Flo"]
LESSONS = [
    Lesson(f"The bridge of {a} was built by {b} in the town of {c}.", f"Bridge {a} {b} {c}")
    for a in NAMES
    for b in NAMES[:3]
    for c in NAMES[3:]
]


PLAN = TrainingPlan(steps=4, documents=2, questions=2, unrelated=0, validate_every=2, validation_questions=1, warm_up=1)

unchecked = partial(TranslatorTrainer, health_check=None)


def translator(lm, kind="shared", seed=0) -> Translator:
    form = {"width": 16, "tokens": 2, "heads": 2} if kind == "shared" else {"width": 8}
    recipe = DISTILL.changed(rank=2, layers=None)
    return Translator(lm, TranslatorConfig.of(lm, kind, recipe=recipe, seed=seed, **form))
