"""Signals of recorded points that their drafts did not keep, from one forward pass over each sentence.

The input is the prompt without passages, the answer up to the sentence, and the sentence, tokenised again. The pass
gives

- the margin of each token: its log-probability minus the runner-up's (the likeliest other token's), and
- hidden states, averaged over the positions that predicted the sentence's tokens, after `DEPTHS` of the layers:
  (depths, width).

They are kept beside the records of the points, one file for each file of questions.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from benchmarks.contract import note, records_folder
from benchmarks.draft_points import EXEMPLARS
from benchmarks.point_records import Row, points_of
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.prompts import reasoned_prompt
from langgraph_dynrag.triggers.probe import DEPTHS


@dataclass(frozen=True, slots=True)
class Forced:
    """What one forward pass over a sentence gives."""

    margins: tuple[float, ...]
    """In nats, for each token; negative if another token is likelier."""
    states: NDArray[np.float32]
    """(depths, width)."""


class ForcedSignals:
    """Reads sentences after the prompt that they were drafted with; the prompt's fixed part is read once."""

    def __init__(self, chat: LocalChatModel) -> None:
        self._chat = chat
        self._model = chat.lm.model
        self._prompt = reasoned_prompt(EXEMPLARS)
        one, other = (chat.encode(self._prompt.messages(q, ())).ids for q in ("Who?", "a"))
        same = (a == b for a, b in zip(one, other, strict=False))
        self._fixed = list(one[: sum(itertools.takewhile(bool, same))])
        self._read = DynamicCache(config=self._model.config)
        with torch.inference_mode():
            self._model(torch.tensor([self._fixed]), past_key_values=self._read, logits_to_keep=1)

    def of(self, question: str, before: str, sentence: str) -> Forced:
        """Return the signals of a sentence that follows `before` in an answer."""
        prompt = list(self._chat.encode(self._prompt.messages(question, ())).ids)
        assert prompt[: len(self._fixed)] == self._fixed
        told = self._chat.get_token_ids(before) if before else []
        ids = self._chat.get_token_ids(sentence)
        rest = [*prompt[len(self._fixed) :], *told, *ids]
        kept = len(ids) + 1
        with torch.inference_mode():
            out = self._model(
                torch.tensor([rest]),
                past_key_values=copy.deepcopy(self._read),
                logits_to_keep=kept,
                output_hidden_states=True,
            )
            logprobs = out.logits[0, :-1].float().log_softmax(-1)
            best = logprobs.topk(2, dim=-1)
            own = logprobs.gather(-1, torch.tensor(ids)[:, None])[:, 0]
            runner_up = torch.where(best.indices[:, 0] == torch.tensor(ids), best.values[:, 1], best.values[:, 0])
            layers = len(out.hidden_states) - 1
            states = [out.hidden_states[round(depth * layers)][0, -kept:-1].float().mean(0) for depth in DEPTHS]
        return Forced(tuple(round(float(m), 5) for m in own - runner_up), torch.stack(states).numpy())


def forced_signals(chat: LocalChatModel, name: str, rows: Sequence[Row]) -> list[Forced]:
    """Return the signals of all points of a file of questions, in the order of `points_of`."""
    points = points_of(rows)
    said = "\n".join(f"{p['question'].text}\t{p['before']}\t{p['sentence']}" for p in points)
    about = hashlib.sha256(f"{chat.lm.fingerprint}{chat.lm.model.dtype}{said}".encode()).hexdigest()[:16]
    path = records_folder() / "forced_signals" / f"{about}.npz"
    if not path.exists():
        reader = ForcedSignals(chat)
        found = []
        for i, p in enumerate(points, 1):
            found.append(reader.of(p["question"].text, p["before"], p["sentence"]))
            if i % 100 == 0:
                note(f"{name}: {i}/{len(points)} sentences read")
        _write(path, found)
    with np.load(path) as kept:
        margins = np.split(kept["margins"], np.cumsum(kept["tokens"])[:-1])
        return [Forced(tuple(m.tolist()), s) for m, s in zip(margins, kept["states"].astype(np.float32), strict=True)]


def _write(path: Path, found: Sequence[Forced]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "margins": np.concatenate([np.asarray(f.margins, np.float32) for f in found]),
        "tokens": np.asarray([len(f.margins) for f in found]),
        "states": np.stack([f.states for f in found]).astype(np.float16),
    }
    part = path.with_suffix(".part.npz")
    np.savez(part, **values)
    part.replace(path)
