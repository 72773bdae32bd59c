"""Saves and restores the state of a training: weights, the optimiser's moments, and the history so far.

    state.json           identity of the training (another training's state is rejected), steps, history
    state.safetensors    weights, and the two moments of each

Both files are written atomically, together.
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
    """Progress and history of a training."""

    steps: int = 0
    """Number of steps done."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry per validation: step, seconds of training so far, training loss since the last validation, and the
    fields of `ValidationLosses`."""
    best: float = math.inf
    """Lowest loss on the validation passages."""
    seconds: float = 0.0
    """Seconds of training, without validation."""
    ended: str = ""
    """Why the training ended; empty while it has not."""
    health: dict[str, Any] | None = None
    """`Health.to_dict()` of the check that allowed this training; None if it was left out."""


def keep(
    folder: Path,
    network: nn.Module,
    optimiser: torch.optim.AdamW,
    identity: Mapping[str, Any],
    run: TrainingRun,
) -> None:
    """Save a state, replacing an earlier one.

    Raises:
        TranslatorError: If the state cannot be written. An earlier one is then untouched.
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
    """Load a saved state into the network and the optimiser.

    Returns:
        The fields of the saved `TrainingRun`; None if there is no saved state.

    Raises:
        TranslatorError: If the state is damaged, or belongs to another training.
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
        raise TranslatorError(f"the training state in {folder} is damaged: {VALUES} does not match {STATE}; remove it")
    if different := [name for name, value in _plain(identity).items() if kept.get(name) != value]:
        raise TranslatorError(
            f"{folder} holds the state of a training with another {' and '.join(different)}; "
            "name another folder, or remove this one to start over"
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
    """Return the identity as it reads after a round trip through JSON."""
    found: dict[str, Any] = json.loads(json.dumps(identity))
    return found
