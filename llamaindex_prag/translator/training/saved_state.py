"""The state of a training, to go on from: weights, the optimiser's moments, and what happened so far.

    state.json           what is trained on what (another training's state is refused), steps, history
    state.safetensors    weights, and the two moments of each

Both appear together or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llamaindex_prag.errors import TranslatorError
from llamaindex_prag.store.folders import write_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

STATE = "state.json"
VALUES = "state.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(slots=True)
class TrainingRun:
    """How a training went."""

    steps: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    """Of each validation: step, seconds of training so far, training loss since the last one, and the losses of
    `ValidationLosses`."""
    best: float = math.inf
    """The lowest loss on the passages set apart."""
    seconds: float = 0.0
    ended: str = ""
    """Why it is over; empty while it is not."""


def keep(
    folder: Path,
    network: nn.Module,
    optimiser: torch.optim.AdamW,
    identity: Mapping[str, Any],
    run: TrainingRun,
) -> None:
    """Keep a state, in the place of an earlier one.

    Raises:
        TranslatorError: If it cannot be written; an earlier one is untouched then.
    """
    from safetensors.torch import save

    content = save(_tensors(network, optimiser))
    described = {"identity": identity, "run": asdict(run), "sha256": hashlib.sha256(content).hexdigest()}
    try:
        write_folder(folder, {STATE: json.dumps(described).encode(), VALUES: content})
    except OSError as error:
        raise TranslatorError(f"the state of step {run.steps} cannot be written: {error}") from error


def restore(
    folder: Path, network: nn.Module, optimiser: torch.optim.AdamW, identity: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Put a kept state into network and optimiser, and return what happened so far; None if there is none.

    Raises:
        TranslatorError: If it is damaged, or of another training.
    """
    from safetensors.torch import load

    if not (folder / STATE).exists():
        return None
    try:
        described = json.loads((folder / STATE).read_text("utf-8"))
        content = (folder / VALUES).read_bytes()
        kept, run, digest = described["identity"], dict(described["run"]), described["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TranslatorError(f"the training state in {folder} cannot be read: {error!r}; remove it") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise TranslatorError(
            f"the training state in {folder} is damaged: {VALUES} is not what {STATE} says; remove it"
        )
    if different := [name for name, value in _plain(identity).items() if kept.get(name) != value]:
        raise TranslatorError(
            f"{folder} holds the state of a training with another {' and '.join(different)}; "
            "name another folder, or remove it to start anew"
        )
    tensors = load(content)
    for name, parameter in network.named_parameters():
        parameter.data.copy_(tensors[name])
        if f"{name}/{_MOMENTS[0]}" in tensors:
            moments = {m: tensors[f"{name}/{m}"].to(parameter.device) for m in _MOMENTS}
            optimiser.state[parameter] = {"step": tensors[f"{name}/step"], **moments}
    return run


def _tensors(network: nn.Module, optimiser: torch.optim.AdamW) -> dict[str, Tensor]:
    found = {}
    for name, parameter in network.named_parameters():
        found[name] = parameter.detach().cpu().contiguous()
        if state := optimiser.state.get(parameter):
            for part in ("step", *_MOMENTS):
                found[f"{name}/{part}"] = torch.as_tensor(state[part]).detach().cpu().clone()
    return found


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    found: dict[str, Any] = json.loads(json.dumps(identity))
    return found
