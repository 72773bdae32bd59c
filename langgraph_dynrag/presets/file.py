"""Preset files: a calibrated method as JSON, tied to the model and the prompt that it was calibrated with.

`create_dynamic_rag(preset="flare-smollm.json")` and `dynprag ask --preset flare-smollm.json` read one. Nothing in the
file is executed: it names the trigger, which must be one of `langgraph_dynrag.triggers`.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, get_type_hints

from langgraph_dynrag import triggers
from langgraph_dynrag.triggers.base import Trigger
from langgraph_dynrag.triggers.threshold import threshold_of
from rag_backbone.documents import UndecodableError, decode
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.cache_folder import write_json

if TYPE_CHECKING:
    from langgraph_dynrag.generators.wrapped_models import ChatModelLike
    from langgraph_dynrag.prompts import AnswerPrompt

_KEY = "dynprag_preset"
VERSION = 1


class PresetFileError(ConfigurationError):
    """A preset file is missing, damaged, of another version, or not a preset file at all."""


class CalibrationWarning(UserWarning):
    """A calibrated threshold is used with another model or prompt than it was found for."""


@dataclass(frozen=True)
class CalibratedFor:
    """The model and prompt that a threshold was calibrated for."""

    model: str
    fingerprint: str
    """Fingerprint of the model's config, tokenizer and weights; for a remote model, its class and name."""
    prompt: str
    """Hash of the prompt's instructions, exemplars and layout."""


@dataclass(frozen=True)
class PresetFile:
    """The content of a preset file."""

    preset: str
    """The published method that the preset is based on."""
    dataset: str
    bundle: str
    trigger: Trigger
    calibrated_for: CalibratedFor
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """Details of how the threshold was found, for human readers."""

    def write(self, path: str | Path) -> Path:
        """Write the file atomically.

        Raises:
            ConfigurationError: If the file name does not end in `.json`, or the trigger is not from
                `langgraph_dynrag.triggers`, so that a file cannot name it.
        """
        target = Path(path)
        if target.suffix != ".json":
            raise ConfigurationError(f"a preset file's name ends in .json, which identifies it as one; got {target}")
        value = {
            _KEY: VERSION,
            "preset": self.preset,
            "dataset": self.dataset,
            "bundle": self.bundle,
            "trigger": _described(self.trigger),
            "model": {"name": self.calibrated_for.model, "fingerprint": self.calibrated_for.fingerprint},
            "prompt": self.calibrated_for.prompt,
            "calibration": dict(self.calibration),
        }
        write_json(target, value)
        return target

    @classmethod
    def read(cls, path: str | Path) -> PresetFile:
        """Read and check a preset file.

        Raises:
            PresetFileError: If the file is missing, damaged or of another version; the message says which.
        """
        file = Path(path)
        value = _loaded(file)
        if value[_KEY] != VERSION:
            raise PresetFileError(
                f"{file} has version {value[_KEY]!r}; this dynprag reads version {VERSION}. Calibrate again: "
                "dynprag calibrate"
            )
        model = _part(file, value, "model", dict)
        about = CalibratedFor(
            _part(file, model, "name", str), _part(file, model, "fingerprint", str), _part(file, value, "prompt", str)
        )
        return cls(
            _part(file, value, "preset", str),
            _part(file, value, "dataset", str),
            _part(file, value, "bundle", str),
            _trigger(file, _part(file, value, "trigger", dict)),
            about,
            _part(file, value, "calibration", dict),
        )


def is_preset_file(name: object) -> bool:
    """Return whether a preset refers to a file: a path, or a name that ends in `.json`."""
    return isinstance(name, Path) or (isinstance(name, str) and name.endswith(".json"))


def belonging(model: ChatModelLike, prompt: AnswerPrompt) -> CalibratedFor:
    """Describe the model and prompt that a threshold found with them belongs to; a local model is loaded."""
    from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
    from langgraph_dynrag.generators.wrapped_models import chat_model_within

    digest = hashlib.sha256(repr(prompt).encode()).hexdigest()
    model = chat_model_within(model)
    if isinstance(model, LocalChatModel):
        return CalibratedFor(model.lm.name, model.lm.fingerprint, digest)
    name = str(getattr(model, "model_name", None) or getattr(model, "model", None) or type(model).__name__)
    return CalibratedFor(name, f"{type(model).__name__}:{name}", digest)


def refuse_another(calibrated: CalibratedFor, model: ChatModelLike, prompt: AnswerPrompt) -> None:
    """Refuse a learned trigger with another model or prompt: neither its probabilities nor their bounds hold there.

    Raises:
        ConfigurationError: If model or prompt differ; the message says which.
    """
    here = belonging(model, prompt)
    differs = {
        f"the model {here.model} ({here.fingerprint[:12]})": calibrated.fingerprint != here.fingerprint,
        "another prompt": calibrated.prompt != here.prompt,
    }
    if any(differs.values()):
        raise ConfigurationError(
            f"this preset's trigger was learned for {calibrated.model} ({calibrated.fingerprint[:12]}) and its prompt, "
            f"and is used with {' and '.join(what for what, yes in differs.items() if yes)}; its probabilities do not "
            "hold there. Learn one for this model and prompt: calibrate(..., trigger='learned')"
        )


def warn_of_another(calibrated: CalibratedFor, model: ChatModelLike, prompt: AnswerPrompt) -> None:
    """Warn if a threshold is used with another model or prompt than it was calibrated for."""
    here = belonging(model, prompt)
    if calibrated.fingerprint != here.fingerprint:
        warnings.warn(
            f"this preset was calibrated for {calibrated.model} ({calibrated.fingerprint[:12]}) and is used with "
            f"{here.model} ({here.fingerprint[:12]}); thresholds do not carry over from one model to another. "
            "Calibrate it for this model: dynprag calibrate",
            CalibrationWarning,
            stacklevel=2,
        )
    elif calibrated.prompt != here.prompt:
        warnings.warn(
            f"this preset was calibrated for {calibrated.model} with another prompt; how sure a model is depends on "
            "the prompt. Calibrate it with this prompt: calibrate(..., prompt=...)",
            CalibrationWarning,
            stacklevel=2,
        )


def refuse_unless_writable(trigger: Any) -> None:
    """Refuse a trigger that a preset file cannot name, before anything is computed for it.

    Raises:
        ConfigurationError: If the trigger is not from `langgraph_dynrag.triggers`.
    """
    _described(trigger)


def _described(trigger: Any) -> dict[str, Any]:
    kind = type(trigger).__name__
    if getattr(triggers, kind, None) is not type(trigger) or not is_dataclass(trigger):
        raise ConfigurationError(
            f"{trigger!r} is not a trigger from langgraph_dynrag.triggers, so a preset file cannot name it; pass it to "
            "create_dynamic_rag(trigger=...) directly"
        )
    return {"kind": kind, "options": {f.name: _plain(getattr(trigger, f.name)) for f in fields(trigger)}}


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _trigger(file: Path, value: Mapping[str, Any]) -> Trigger:
    kind = _part(file, value, "kind", str)
    options = _part(file, value, "options", dict)
    known = {name: getattr(triggers, name) for name in triggers.__all__}
    made = known.get(kind)
    if not (isinstance(made, type) and is_dataclass(made)):
        listed = ", ".join(n for n, c in known.items() if isinstance(c, type) and is_dataclass(c))
        raise PresetFileError(f"{file} names the trigger {kind!r}; known: {listed}")
    _refuse_unknown(file, kind, options, made)
    hints = get_type_hints(made)
    # A dataclass with a method `of` converts and checks what the file holds itself, when the trigger is made.
    nested = {
        name: hint for name, hint in hints.items() if name in options and is_dataclass(hint) and not hasattr(hint, "of")
    }
    made_of = {
        name: _rebuilt(file, f"{kind}'s {name}", _part(file, options, name, dict), nested[name]) for name in nested
    }
    try:
        trigger = cast("Trigger", made(**{**options, **made_of}))
        threshold = threshold_of(trigger)
    except (TypeError, ValueError) as error:  # ConfigurationError is a ValueError
        raise PresetFileError(f"{file} gives {kind} options that it does not accept: {error}") from error
    if threshold is not None and not math.isfinite(threshold):
        raise PresetFileError(f"{file} gives {kind} the threshold {threshold}; a finite number is needed")
    return trigger


def _rebuilt(file: Path, what: str, value: Mapping[str, Any], made: Any) -> Any:
    """Build a dataclass that is an option of a trigger, and check that each field has its declared type."""
    _refuse_unknown(file, what, value, made)
    hints = get_type_hints(made)
    for name, given in value.items():
        if not _fits(given, hints[name]):
            raise PresetFileError(f"{file} gives {what} options that it does not accept: {name} is {given!r}")
    try:
        return made(**value)
    except (TypeError, ValueError) as error:
        raise PresetFileError(f"{file} gives {what} options that it does not accept: {error}") from error


def _refuse_unknown(file: Path, what: str, options: Mapping[str, Any], made: Any) -> None:
    names = {f.name for f in fields(made)}
    if unknown := set(options) - names:
        raise PresetFileError(
            f"{file} gives {what} the unknown option {', '.join(sorted(unknown))}; known: {', '.join(sorted(names))}"
        )


def _fits(value: Any, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is hint if isinstance(hint, type) else value in get_args(hint)


def _loaded(file: Path) -> dict[str, Any]:
    try:
        text = decode(file.read_bytes())
    except FileNotFoundError:
        raise PresetFileError(
            f"there is no preset file {file}; create one: dynprag calibrate QUESTIONS --out {file}"
        ) from None
    except (OSError, UndecodableError) as error:
        raise PresetFileError(f"{file} cannot be read: {error}") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PresetFileError(f"{file} is damaged, it is not valid JSON: {error}") from error
    if not isinstance(value, dict) or _KEY not in value:
        raise PresetFileError(f"{file} is not a preset file: it lacks {_KEY!r}, which `dynprag calibrate` writes")
    return value


def _part(file: Path, value: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in value:
        raise PresetFileError(f"{file} is damaged: {name!r} is missing")
    if not isinstance(value[name], kind):
        raise PresetFileError(
            f"{file} is damaged: {name!r} is {value[name]!r}; "
            f"{'an object' if kind is dict else 'a text'} is needed there"
        )
    return value[name]
