"""Decode speed of our token loop compared with transformers' `generate`: same model, prompt, token count and dtype.

`plain_ratio` is our tokens per second over theirs, without signals; `signals_overhead` is the cost of recording
entropy, last-layer attention and a hidden state for every token: 1 - with / without. All three decode greedily and
cannot end early. Our two loops alternate token by token; `generate` alternates with them text by text, in a temporary
thread, so that each thread has the processor's workers to itself. Figures are medians over the tokens of a text,
without the prefill, and over the repetitions. In float32 the tokens must be identical.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from transformers.generation.streamers import BaseStreamer

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.runs import load_chat
from rag_backbone.aio import in_thread_that_ends
from rag_backbone.engine.engine import Engine
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals

if TYPE_CHECKING:
    from rag_backbone.loading.causal_lm import CausalLM

_PROMPT = (
    "The lighthouse on the northern cape was built in a year when the harbour froze. Tell its story from the first "
    "stone to the last keeper, with names, dates and the reasons for what was done. "
)
_THEIRS, _PLAIN, _SIGNALS = "generate", "ours", "ours, all signals"


@dataclass
class _Text:
    """The tokens of one loop, and the seconds of each token except the first."""

    tokens: list[int]
    seconds: list[float]

    @property
    def pace(self) -> float:
        """Median seconds per token."""
        return statistics.median(self.seconds)


class _Clock(BaseStreamer):
    """A streamer that records the time of each token from `generate`."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.tokens: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        if value.dim() == 1:  # skips the prompt, which `generate` passes before it computes anything
            self.at.append(time.perf_counter())
            self.tokens.append(int(value[0]))

    def end(self) -> None:
        """Do nothing; the streamer interface requires this method."""

    def text(self) -> _Text:
        """Return all tokens with their times."""
        return _Text(self.tokens, [b - a for a, b in pairwise(self.at)])


def _theirs(lm: CausalLM, ids: list[int], tokens: int) -> _Text:
    clock, prompt = _Clock(), torch.tensor([ids], device=lm.model.device)
    with torch.inference_mode():
        lm.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=lm.tokenizer.pad_token_id or 0,
            streamer=clock,
        )
    return clock.text()


def _ours(lm: CausalLM, ids: list[int], tokens: int) -> dict[str, _Text]:
    engine = Engine(lm.model, lm.tokenizer)
    never = Sampling(logit_bias=dict.fromkeys(engine.end_ids, -1e9))
    everything = Signals(entropy=True, attention="attention" in engine.signals, hidden_state=-1)
    wanted = {_PLAIN: Signals(), _SIGNALS: everything}
    texts = {name: _Text([], []) for name in wanted}
    loops = [
        (texts[name], iter(engine.stream(Request(ids, tokens, sampling=never, signals=signals))))
        for name, signals in wanted.items()
    ]
    for i in range(tokens):
        for text, steps in loops if i % 2 else reversed(loops):
            started = time.perf_counter()
            text.tokens.append(next(steps).token_id)
            if i:
                text.seconds.append(time.perf_counter() - started)
    engine.close()
    return texts


def _repetition(lm: CausalLM, ids: list[int], tokens: int, number: int) -> dict[str, _Text]:
    """Let all three loops generate `tokens` tokens after `ids`."""
    if number % 2:
        return _ours(lm, ids, tokens) | {_THEIRS: in_thread_that_ends(_theirs, lm, ids, tokens)}
    return {_THEIRS: in_thread_that_ends(_theirs, lm, ids, tokens)} | _ours(lm, ids, tokens)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Decode speed of our token loop compared with transformers' generate.")
    options.add_argument("--tokens", type=int, default=48, help="tokens generated in each repetition")
    options.add_argument("--prompt-tokens", type=int, default=512)
    options.add_argument("--repetitions", type=int, default=15)
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    lm = load_chat(args.model, args.dtype).lm
    ids = (lm.tokenizer(_PROMPT * 40).input_ids)[: args.prompt_tokens]
    _repetition(lm, ids, 8, 0)  # warm-up
    found: list[dict[str, _Text]] = []
    for i in range(args.repetitions):
        found.append(_repetition(lm, ids, args.tokens, i))
        note(f"{i + 1}/{args.repetitions}: " + ", ".join(f"{k} {v:.3f}" for k, v in _ratios(found[-1]).items()))
        if deadline.over:
            break
    each = [_ratios(texts) for texts in found]
    ratios = {name: statistics.median(r[name] for r in each) for name in each[0]}
    speeds = {name: 1 / statistics.median(texts[name].pace for texts in found) for name in found[0]}
    same = all(text.tokens == texts[_THEIRS].tokens for texts in found for text in texts.values())
    result: dict[str, Any] = {
        **ratios,
        "same_tokens": same,
        "repetitions": {name: [r[name] for r in each] for name in ratios},
        "tokens_per_second": speeds,
        "model": lm.name,
        "dtype": args.dtype,
        "prompt_tokens": len(ids),
        "tokens": args.tokens,
        "machine": machine(),
    }
    rows = [{"loop": name, "tokens/s": speed} for name, speed in speeds.items()]
    report = f"# Token loop: {lm.name}, {args.dtype}\n\n{table(rows, ['loop', 'tokens/s'])}\n\n"
    report += ", ".join(f"{name} {value:.3f}" for name, value in ratios.items()) + f", same tokens: {same}"
    note(report)
    finish("decode", result, args.out, report)


def _ratios(texts: Mapping[str, _Text]) -> dict[str, float]:
    pace = {name: text.pace for name, text in texts.items()}
    return {"plain_ratio": pace[_THEIRS] / pace[_PLAIN], "signals_overhead": 1 - pace[_PLAIN] / pace[_SIGNALS]}


if __name__ == "__main__":
    main()
