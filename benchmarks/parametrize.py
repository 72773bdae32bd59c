"""Speed of training the adapters of many documents at once, compared with one after the other with PEFT.

- `ratio_vs_sequential_prag`, `ratio_vs_sequential_distill`: our documents per second over those of a loop that trains
  each document alone with PEFT's layers and torch's AdamW, with the same sequences, batches, dtype and optimisations:
  base weights frozen, no padding beyond the batch, logits only for tokens that count. The loop lacks what we add:
  batches with sequences of several documents, shared prefixes prefilled once, and layers below the adapted ones
  computed once.
- `answer_over_prompt`: seconds of training adapters that act from the answer on, over those of adapters that act on the
  prompt too, with the same questions: `distill` with `acts_from="answer"`, and as it is, both for all of its epochs.
- `ratio_vs_published`: compared with PRAG's released procedure, which pads every sequence to 3000 tokens and computes
  logits everywhere; measured on a few sequences in the same dtype.
- `mean_tokens`: mean number of tokens of a PRAG sequence, without padding.
- `max_rel_difference`: the largest difference between our factors and the loop's, over all documents, as norm of the
  difference over norm; in float32 both compute the same.

Questions and answers are given, so that only training is timed. Both sides alternate, group by group.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.recipe import DISTILL, PRAG, Recipe
from llamaindex_prag.adapters.targets import layout_of
from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.augment.rules.questions import rule_questions
from llamaindex_prag.training.distillation import distilled
from llamaindex_prag.training.examples import TrainingDocument, prag_examples
from llamaindex_prag.training.factors import initial_values
from llamaindex_prag.training.objective import CountedLogits, batch_of, losses_of
from llamaindex_prag.training.packs import Pack
from llamaindex_prag.training.trainer import Trainer, plan
from rag_backbone.documents import read_json_lines
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.text.units import sentences

_Factors = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
DATA = Path("examples/data/ombrel")
PUBLISHED_LENGTH = 3000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Training adapters: many at once compared with one by one.")
    options.add_argument("--documents", type=int, default=16)
    options.add_argument("--together", type=int, default=8, help="documents in a group")
    options.add_argument("--distill-documents", type=int, default=8)
    options.add_argument("--distill-epochs", type=int, default=2, help="the ratio does not depend on it")
    options.add_argument("--answer-documents", type=int, default=4, help="documents trained from the answer on")
    options.add_argument("--published-sequences", type=int, default=2)
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    corpus = _corpus(DATA)
    texts = list(corpus)[: max(args.documents, args.distill_documents)]
    prag = [_prag_document(lm, text, corpus[text]) for text in texts[: args.documents]]
    told = _compared(lm, PRAG, prag, args.together, deadline)
    recipe = DISTILL.changed(epochs=args.distill_epochs)
    asked = [(text, rule_questions(text, recipe.phrases)) for text in texts[: args.distill_documents]]
    taught = _compared(lm, recipe, distilled(lm.engine, recipe, asked), args.together, deadline)
    from_prompt, from_answer = _acting_from(lm, asked[: args.answer_documents])
    published = _published_seconds(lm, prag[0], args.published_sequences)
    lengths = [len(e.ids) for d in prag for e in d.examples]
    figures = {
        "ratio_vs_sequential_prag": told.ratio,
        "ratio_vs_sequential_distill": taught.ratio,
        "answer_over_prompt": from_answer / from_prompt,
        "ratio_vs_published": published * len(lengths) / told.ours,
        "mean_tokens": statistics.mean(lengths),
        "max_rel_difference": max(told.difference, taught.difference),
        "documents_per_second_prag": told.documents / told.ours,
        "documents_per_second_distill": taught.documents / taught.ours,
        "distill_epochs": args.distill_epochs,
        "tokens_per_second_prag": sum(lengths[: told.documents * 5]) / told.ours,
        "documents": told.documents,
        "together": args.together,
        "model": lm.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "machine": machine(),
    }
    rows = [
        {
            "recipe": "prag",
            "ours s/doc": told.ours / told.documents,
            "one by one": told.theirs / told.documents,
            "published": published * 5,
        },
        {
            "recipe": f"distill, {args.distill_epochs} epochs",
            "ours s/doc": taught.ours / taught.documents,
            "one by one": taught.theirs / taught.documents,
        },
        {"recipe": f"distill, {DISTILL.epochs} epochs", "ours s/doc": from_prompt},
        {"recipe": f"the same, from the answer on, {DISTILL.epochs} epochs", "ours s/doc": from_answer},
    ]
    report = f"# Training adapters: {lm.name}, {args.dtype}\n\n"
    report += table(rows, ["recipe", "ours s/doc", "one by one", "published"]) + "\n\n"
    report += ", ".join(f"{n} {v:.3g}" for n, v in figures.items() if isinstance(v, float))
    note(report)
    finish("parametrize", figures, args.out, report)


@dataclass(frozen=True, slots=True)
class _Compared:
    documents: int
    ours: float
    """Total seconds of our training."""
    theirs: float
    """Total seconds of the loop."""
    ratio: float
    """Median over the groups of theirs over ours."""
    difference: float


def _compared(
    lm: CausalLM, recipe: Recipe, documents: Sequence[TrainingDocument], together: int, deadline: Deadline
) -> _Compared:
    layout = layout_of(lm.model, rank=recipe.rank, layers=recipe.layers)
    trainer = Trainer(lm.engine, layout, recipe, documents_at_once=together)
    loop = _OneByOne(lm, layout, recipe)
    list(trainer.train(documents[:1]))  # warm-up
    loop.train(documents[0])
    ordered = sorted(documents, key=lambda d: d.tokens)
    ours, theirs, worst = [], [], 0.0
    for i in range(0, len(ordered), together):
        group = ordered[i : i + together]
        started = time.perf_counter()
        found = {t.document.text: t.adapter.buffer for t in trainer.train(group)}
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        expected = {d.text: loop.train(d) for d in group}
        theirs.append(time.perf_counter() - started)
        worst = max(worst, *(_difference(layout, found[d.text], expected[d.text]) for d in group))
        note(f"{recipe.name}: {len(group)} documents, ours {ours[-1]:.1f} s, one by one {theirs[-1]:.1f} s")
        if deadline.over:
            break
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return _Compared(min(len(ours) * together, len(ordered)), sum(ours), sum(theirs), ratio, worst)


def _acting_from(lm: CausalLM, asked: Sequence[tuple[str, Sequence[QA]]]) -> tuple[float, float]:
    """Return seconds per document of adapters that act from the prompt on, and of those from the answer on."""
    seconds = []
    for recipe in (DISTILL, DISTILL.changed(acts_from="answer")):
        trainer = Trainer(lm.engine, layout_of(lm.model, rank=recipe.rank, layers=recipe.layers), recipe)
        documents = distilled(lm.engine, recipe, asked)
        started = time.perf_counter()
        list(trainer.train(documents))
        seconds.append((time.perf_counter() - started) / len(documents))
        note(f"acting from the {recipe.acts_from}: {seconds[-1]:.1f} s per document")
    return seconds[0], seconds[1]


class _OneByOne:
    """An efficient loop that trains each document alone, with PEFT's layers and torch's optimiser."""

    def __init__(self, lm: CausalLM, layout: Layout, recipe: Recipe) -> None:
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            target_modules=[t.name for t in layout.targets],
            task_type="CAUSAL_LM",
        )
        wrapped: Any = get_peft_model(copy.deepcopy(lm.model), config)
        self._model = wrapped.base_model.model
        self._recipe = recipe
        self._pad = lm.tokenizer.pad_token_id or 0
        self._start = initial_values(layout, recipe.seed).numpy()
        self._layers = {t.name: self._model.get_submodule(t.name) for t in layout.targets}
        self._layout = layout
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._logits = CountedLogits(self._model)

    def train(self, document: TrainingDocument) -> _Factors:
        """Train on one document; return `A` and `B` of each layer."""
        for target, a, _ in self._layout.factors(self._start):
            layer = self._layers[target.name]
            layer.lora_A["default"].weight.data.copy_(torch.from_numpy(a))
            layer.lora_B["default"].weight.data.zero_()
        recipe = self._recipe
        optimiser = torch.optim.AdamW(
            self._parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, eps=recipe.epsilon
        )
        batches = plan(document, recipe)
        falls = recipe.schedule == "linear"
        rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / len(batches) if falls else 1.0)
        for examples in batches:
            counted = sum(e.counted for e in examples)
            rows = [Pack((example,), 0) for example in examples]
            batch = batch_of(rows, self._model.device, pad=self._pad, weights=[1 / counted] * len(rows))
            losses_of(self._logits(batch), batch).sum().backward()
            optimiser.step()
            rates.step()
            optimiser.zero_grad()
        return {name: (_values(layer.lora_A), _values(layer.lora_B)) for name, layer in self._layers.items()}


def _values(factor: Any) -> NDArray[np.float32]:
    values: NDArray[np.float32] = factor["default"].weight.detach().float().cpu().numpy().copy()
    return values


def _difference(layout: Layout, ours: NDArray[np.float32], theirs: _Factors) -> float:
    worst = 0.0
    for target, a, b in layout.factors(ours):
        for found, expected in zip((a, b), theirs[target.name], strict=True):
            norm = max(float(np.linalg.norm(expected)), 1e-12)
            worst = max(worst, float(np.linalg.norm(found - expected)) / norm)
    return worst


def _published_seconds(lm: CausalLM, document: TrainingDocument, sequences: int) -> float:
    """Return the median seconds of forward and backward for one sequence, padded to 3000 tokens."""
    loop = _OneByOne(lm, layout_of(lm.model, rank=PRAG.rank), PRAG)
    pad = lm.tokenizer.pad_token_id or 0
    seconds = []
    for example in document.examples[:sequences]:
        ids = torch.tensor([[*example.ids, *[pad] * (PUBLISHED_LENGTH - len(example.ids))]])
        mask = (torch.arange(PUBLISHED_LENGTH) < len(example.ids))[None]
        started = time.perf_counter()
        logits = loop._model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits.float()  # noqa: SLF001
        labels = ids.masked_fill(~mask, -100)
        functional.cross_entropy(logits[0, :-1], labels[0, 1:]).backward()
        seconds.append(time.perf_counter() - started)
        note(f"published: {seconds[-1]:.1f} s per sequence")
    return statistics.median(seconds)


def _corpus(folder: Path) -> dict[str, list[QA]]:
    """Return each document that answers at least three one-hop questions, with these questions."""
    texts = {d["id"]: d["text"] for _, d in read_json_lines(folder / "corpus.jsonl")}
    found: dict[str, list[QA]] = {text: [] for text in texts.values()}
    for _, item in read_json_lines(folder / "questions.jsonl"):
        if item["hops"] == 1:
            found[texts[item["documents"][0]]].append(QA(item["question"], item["answers"][0]))
    return {text: qas for text, qas in found.items() if len(qas) >= 3}


def _prag_document(lm: CausalLM, text: str, qas: Sequence[QA]) -> TrainingDocument:
    # Reversed sentences stand in for a rewrite, because only its length matters here.
    rewrite = " ".join(reversed([text[s.start : s.end].strip() for s in sentences(text)]))
    return TrainingDocument(text, prag_examples(lm.tokenizer, text, rewrite, qas))


if __name__ == "__main__":
    main()
