"""Compare two implementations of a model: how long their outputs agree, and the logit gap where they diverge."""

from dataclasses import dataclass

from llamaindex_prag.prompts import prompt_ids
from rag_backbone.engine.requests import Request

NEAR = 0.5
"""Gap between two logits below which another order of summation in bfloat16 may swap the tokens."""


@dataclass(frozen=True)
class Comparison:
    agreed: int
    """Number of equal tokens from the start."""
    length: int
    """Length of the longer answer."""
    gap: float | None
    """Logit of the local token minus that of the other token where they diverge; None if they do not diverge.

    Local decoding is greedy, so the two best logits lie at most this far apart.
    """


def compared(local, served, question, selection, tokens=32):
    """Compare the answers to a question with the same adapters, locally and in the server."""
    ids = prompt_ids(local.lm.tokenizer, question)
    found = served.lm.engine.generate(Request(ids, tokens, adapters=selection))
    return judged(local, ids, selection, found.token_ids, tokens)


def judged(local, ids, selection, other, tokens=32):
    """Compare the local answer with token ids that were generated elsewhere."""
    engine, end = local.lm.engine, local.lm.tokenizer.eos_token_id
    own = engine.generate(Request(ids, tokens, adapters=selection)).token_ids
    longest = max(len(own), len(other))
    same = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), min(len(own), len(other)))
    if same == longest:
        return Comparison(same, longest, None)
    before = ids + own[:same]
    here, there = (written[same] if same < len(written) else end for written in (own, other))
    scores = [float(engine.score(before, [t], adapters=selection).logprobs[0]) for t in (here, there)]
    return Comparison(same, longest, scores[0] - scores[1])
