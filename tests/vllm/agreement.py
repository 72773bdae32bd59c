"""How far two implementations of one model write the same, and how near the choice was where they part."""

from dataclasses import dataclass

from llamaindex_prag.prompts import prompt_ids
from rag_backbone.engine.requests import Request

NEAR = 0.5
"""Between two logits: in bfloat16 another order of summation may swap tokens that are so near."""


@dataclass(frozen=True)
class Comparison:
    agreed: int
    """Equal tokens from the beginning."""
    length: int
    """Of the longer answer."""
    gap: float | None
    """How much the logit of the token written here exceeds that of the token written there; None: they do not part.

    Here the best logit wins, so the two best lie at most this far apart.
    """


def compared(local, served, question, selection, tokens=32):
    """The same question with the same adapters here and in the server."""
    ids = prompt_ids(local.lm.tokenizer, question)
    found = served.lm.engine.generate(Request(ids, tokens, adapters=selection))
    return judged(local, ids, selection, found.token_ids, tokens)


def judged(local, ids, selection, other, tokens=32):
    """What is written here, beside the token ids that were written elsewhere."""
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
