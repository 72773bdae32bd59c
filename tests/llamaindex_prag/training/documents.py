"""Random training documents."""

import numpy as np
import torch

from llamaindex_prag.training.examples import Example, Teacher, TrainingDocument


def random_document(seed: int, sequences: int, *, teacher: bool = False) -> TrainingDocument:
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(sequences):
        ids = tuple(int(i) for i in rng.integers(3, 400, rng.integers(6, 40)))
        start = int(rng.integers(1, len(ids) - 1)) if teacher else 1
        taught = None
        if teacher:
            logprobs = torch.randn(len(ids) - start, 400, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
            best = logprobs.topk(16)
            taught = Teacher(best.indices, best.values)
        examples.append(Example(ids, start, taught))
    return TrainingDocument(f"document {seed}", tuple(examples))
