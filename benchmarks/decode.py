"""Our token loop against transformers' `generate`: same model, prompt, number of tokens and dtype.

`plain_ratio` is our tokens a second over theirs, without signals; `signals_overhead` is what entropy, last-layer
attention and a hidden state of every token cost us: 1 - with / without. All three decode greedily and cannot end
early. They take turns token by token, so that a machine that grows slower or faster meanwhile favours nobody:
`generate` hands each token to a streamer, and the streamer takes a step of each of ours before it returns. Figures are
medians over the tokens, the prompt's own forward not among them. In float32 the tokens must be the same.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.generation.streamers import BaseStreamer

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.runs import load_chat
from rag_backbone.requests import Request
from rag_backbone.sampling import Sampling
from rag_backbone.signals import Signals, TokenStep

if TYPE_CHECKING:
    from rag_backbone.causal_lm import CausalLM
    from rag_backbone.engine import Engine

_PROMPT = (
    "The lighthouse on the northern cape was built in a year when the harbour froze. Tell its story from the first "
    "stone to the last keeper, with names, dates and the reasons for what was done. "
)
_THEIRS, _PLAIN, _SIGNALS = "generate", "ours", "ours, all signals"


class _Turns(BaseStreamer):
    """Told by `generate` of each of its tokens; then the others take a step."""

    def __init__(self, engine: Engine, others: dict[str, Iterator[TokenStep]]) -> None:
        self._engine = engine
        self._others = others
        self._since: float | None = None
        self.seconds: dict[str, list[float]] = {name: [] for name in (_THEIRS, *others)}
        self.tokens: dict[str, list[int]] = {name: [] for name in (_THEIRS, *others)}

    def put(self, value: torch.Tensor) -> None:
        now = time.perf_counter()
        if value.dim() > 1:  # the prompt, before anything is computed
            return
        if self._since is not None:
            self.seconds[_THEIRS].append(now - self._since)
        self.tokens[_THEIRS].append(int(value[0]))
        turn = list(self._others.items())
        for name, steps in turn if len(self.tokens[_THEIRS]) % 2 else reversed(turn):
            started = time.perf_counter()
            step = next(steps)
            if self._since is not None:
                self.seconds[name].append(time.perf_counter() - started)
            self.tokens[name].append(step.token_id)
        with self._engine.borrowed():  # whose thread then gives back its workers: they would slow down theirs
            pass
        self._since = time.perf_counter()

    def end(self) -> None:
        """Nothing is left to do."""


def _one_text(lm: CausalLM, ids: list[int], tokens: int) -> _Turns:
    """All three write `tokens` tokens after `ids`."""
    engine = lm.engine
    never = Sampling(logit_bias=dict.fromkeys(engine.end_ids, -1e9))
    everything = Signals(entropy=True, attention="attention" in engine.signals, hidden_state=-1)
    engine.prefixes.clear()
    streams = {
        name: engine.stream(Request(ids, tokens, sampling=never, signals=signals))
        for name, signals in ((_PLAIN, Signals()), (_SIGNALS, everything))
    }
    turns = _Turns(engine, {name: iter(stream) for name, stream in streams.items()})
    prompt = torch.tensor([ids], device=lm.model.device)
    with torch.inference_mode():
        lm.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=lm.tokenizer.pad_token_id or 0,
            streamer=turns,
        )
    for stream in streams.values():
        stream.close()
    return turns


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Our token loop against transformers' generate.")
    options.add_argument("--tokens", type=int, default=128, help="generated in each repetition")
    options.add_argument("--prompt-tokens", type=int, default=512)
    options.add_argument("--repetitions", type=int, default=6)
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    lm = load_chat(args.model, args.dtype).lm
    ids = (lm.tokenizer(_PROMPT * 40).input_ids)[: args.prompt_tokens]
    _one_text(lm, ids, 8)  # warm-up
    texts: list[_Turns] = []
    for i in range(args.repetitions):
        texts.append(_one_text(lm, ids, args.tokens))
        figures = ", ".join(f"{name} {value:.3f}" for name, value in _ratios(texts[-1:]).items())
        note(f"{i + 1}/{args.repetitions}: {figures}")
        if deadline.over:
            break
    speeds = {name: 1 / statistics.median(s for t in texts for s in t.seconds[name]) for name in texts[0].seconds}
    ratios, repetitions = _ratios(texts), [_ratios([t]) for t in texts]
    same = all(t.tokens[name] == t.tokens[_THEIRS] for t in texts for name in t.tokens)
    found: dict[str, Any] = {
        **ratios, "same_tokens": same,
        "repetitions": {name: [r[name] for r in repetitions] for name in ratios},
        "tokens_per_second": speeds, "model": lm.name, "dtype": args.dtype, "prompt_tokens": len(ids),
        "tokens": args.tokens, "machine": machine(),
    }  # fmt: skip
    rows = [{"loop": name, "tokens/s": speed} for name, speed in speeds.items()]
    report = f"# Token loop: {lm.name}, {args.dtype}\n\n{table(rows, ['loop', 'tokens/s'])}\n\n"
    report += ", ".join(f"{name} {value:.3f}" for name, value in ratios.items()) + f", same tokens: {same}"
    note(report)
    finish("decode", found, args.out, report)


def _ratios(texts: Sequence[_Turns]) -> dict[str, float]:
    """Medians over the tokens, each compared with its neighbours in time."""

    def median(of: str, over: str) -> float:
        pairs = (p for t in texts for p in zip(t.seconds[of], t.seconds[over], strict=False))
        return statistics.median(a / b for a, b in pairs)

    return {"plain_ratio": median(_THEIRS, _PLAIN), "signals_overhead": 1 - median(_PLAIN, _SIGNALS)}


if __name__ == "__main__":
    main()
