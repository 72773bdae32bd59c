"""How a document becomes an adapter: everything that the result depends on beside the model and the text.

A recipe is part of an adapter's key, so that adapters made in different ways are never mixed. The published ones:

- `prag`: Su et al. 2025 (arXiv 2501.15915), section 3.2 and 4: five sequences a document, next-token loss over all of
  each, rank 2, alpha 32, AdamW at 3e-4, one document's sequences once, one at a time. The model itself writes questions
  and rewrite, if it is as large as the paper's; of a smaller one the questions are made by rule (`augmentation`).
- `distill`: ours. Questions about the passage, asked without it. Those made by rule bring their answers, which are
  taught as they stand. A generator's (`questions`) and those asked with the passage are taught by the model that has
  the passage in its context, unrelated ones by the model without any: KL divergence on answer and end-of-sequence
  tokens (context distillation, Snell et al. 2022, arXiv 2209.15189).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

from rag_backbone.errors import ConfigurationError

FFN_TARGETS = ("gate_proj", "up_proj", "down_proj")
"""The feed-forward projections of the Llama and Qwen2 families, which PRAG (section 3.2) adapts."""

SEQUENCES_VERSION = 2
"""Part of every recipe's key: raise it when prompts, rules or order change what passages are trained on."""

Objective = Literal["next_token", "distill"]
Schedule = Literal["constant", "linear"]
Augmented = Literal["auto", "model", "rules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named way to make adapters."""

    name: str
    objective: Objective
    rank: int = 2
    alpha: float = 32.0
    """The update is multiplied by `alpha / rank`."""
    targets: tuple[str, ...] = FFN_TARGETS
    layers: tuple[int, ...] | float | None = None
    """Numbers of decoder layers, or which part of them, counted from the last (0.5: the upper half); None: all."""
    learning_rate: float = 3e-4
    schedule: Schedule = "constant"
    """Of the learning rate: `linear` falls from the first step to nothing after a document's last."""
    weight_decay: float = 0.01
    epsilon: float = 1e-6
    """Of AdamW; PRAG's paper names none. A gradient's element far above it moves its weight by about the learning rate,
    whatever its size. At torch's 1e-8 elements that are rounding errors do, and a document's adapter depends on what it
    was trained beside; as a whole PRAG's adapters differ by half a percent between the two."""
    epochs: int = 1
    batch_size: int = 1
    """Sequences of one document in one optimiser step."""
    questions: int = 3
    """How many questions an augmenter is asked for; 0, where `phrases` are enough: none is asked."""
    phrases: int = 0
    """Questions beside those, made by rule about the phrases of the passage (`rule_questions`)."""
    unrelated: int = 0
    """Questions of other subjects mixed in, taught by the model without any passage (against interference)."""
    with_passage: int = 0
    """Questions also asked with the passage in the prompt (for `injection="combined"`)."""
    max_tokens: int = 2048
    """Of a training sequence. Room for a chunk as LlamaIndex cuts it by default (1,024 tokens); a longer passage is
    refused, and a longer sequence (with a long rewrite) left out."""
    seed: int = 0
    start: str = ""
    """`AdapterKey.digest` of the adapter from which training starts, such as a warm-up's; empty: a random `A` and a
    zero `B`. Where several documents' adapters are summed, what they all started from is summed with them."""
    augmentation: Augmented = "auto"
    """Who asks `questions` and rewrites the passage: a language `"model"`, as published, or `"rules"`, which rewrite
    nothing. `"auto"` is settled by the model (`augmenter_choice.settled`): rules where it is too small."""

    def __post_init__(self) -> None:
        choices = {"objective": Objective, "schedule": Schedule, "augmentation": Augmented}
        for name, known in choices.items():
            if (chosen := getattr(self, name)) not in get_args(known):
                raise ConfigurationError(f"{name} is {chosen!r}; known: {', '.join(map(repr, get_args(known)))}")
        self._check_numbers()
        self._check_augmentation()
        if not self.questions and (self.objective == "next_token" or not self.phrases):
            raise ConfigurationError("questions is 0; a passage is learnt by questions, of an augmenter's or by rule")
        if self.phrases and self.objective == "next_token":
            raise ConfigurationError(f"phrases is {self.phrases}; they are asked for by objective='distill' only")
        if not self.targets:
            raise ConfigurationError("targets is empty; name at least one linear layer, such as 'down_proj'")

    def _check_numbers(self) -> None:
        for name in ("rank", "epochs", "batch_size", "max_tokens"):
            if (value := getattr(self, name)) < 1:
                raise ConfigurationError(f"{name} is {value}; at least 1 is needed")
        for name in ("alpha", "learning_rate", "epsilon"):
            if not (value := getattr(self, name)) > 0:
                raise ConfigurationError(f"{name} is {value}; it must be above 0")
        if isinstance(self.layers, float) and not 0 < self.layers <= 1:
            raise ConfigurationError(f"layers is {self.layers}; as a part of all layers it must be above 0, at most 1")
        for name in ("unrelated", "with_passage", "weight_decay", "questions", "phrases"):
            if (value := getattr(self, name)) < 0:
                raise ConfigurationError(f"{name} is {value}; it cannot be negative")

    def _check_augmentation(self) -> None:
        if self.augmentation == "model" and not self.questions:
            raise ConfigurationError(
                f"augmentation is 'model' and questions is 0, so the model would ask none; the recipe {self.name!r} "
                "learns from questions by rule. Say how many the model is to ask beside them, such as questions=8"
            )
        if self.augmentation == "rules" and self.questions and self.phrases:
            raise ConfigurationError(
                f"augmentation is 'rules' and questions is {self.questions} beside phrases={self.phrases}, which are "
                "questions by rule already; raise phrases instead"
            )

    @property
    def scale(self) -> float:
        """What multiplies `B A`."""
        return self.alpha / self.rank

    @property
    def key(self) -> str:
        """Equal exactly for recipes that make the same adapters."""
        made = self.to_dict()
        # What a model asked has the key that it had before there was a choice, and so has what asks nobody.
        if not (self.augmentation == "rules" and self.questions):
            made.pop("augmentation", None)
        content = json.dumps([made, SEQUENCES_VERSION], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def changed(self, **changes: Any) -> Self:
        """This recipe with some values exchanged."""
        known = [f.name for f in fields(self)]
        if unknown := sorted(set(changes) - set(known)):
            raise ConfigurationError(f"a recipe has no {', '.join(unknown)}; it has {', '.join(known)}")
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, without an `augmentation` that is not settled: fingerprints of translators hold a recipe."""
        found = asdict(self)
        if self.augmentation == "auto":
            del found["augmentation"]
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """From plain data."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigurationError(f"not the description of a recipe: {error}") from error


PRAG = Recipe(name="prag", objective="next_token")
DISTILL = Recipe(
    name="distill",
    objective="distill",
    rank=8,
    alpha=16.0,
    layers=1 / 3,
    learning_rate=2e-3,
    schedule="linear",
    weight_decay=0.0,
    epochs=8,
    batch_size=8,
    questions=0,
    phrases=64,
    unrelated=2,
    with_passage=4,
)
WARM_UP = Recipe(name="warm_up", objective="next_token")
"""PRAG's document-free first stage (section 4.1 and its table of warm-up runs): questions and answers of other
subjects, no passage, one epoch. It teaches the form of an answer; see `training.warm_up`."""
RECIPES: dict[str, Recipe] = {r.name: r for r in (PRAG, DISTILL)}


def get_recipe(name: str | Recipe, **changes: Any) -> Recipe:
    """A recipe by name, with some of its values exchanged.

    Raises:
        ConfigurationError: If there is none of that name; the message lists the known ones.
    """
    if isinstance(name, Recipe):
        return name.changed(**changes)
    if name not in RECIPES:
        raise ConfigurationError(f"there is no recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name].changed(**changes)
