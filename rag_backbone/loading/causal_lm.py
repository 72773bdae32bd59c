"""Loading a decoder-only language model: the embedded one, a folder, a Hub id, or a model already in memory."""

from __future__ import annotations

import functools
import json
import logging
import struct
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rag_backbone.aio import in_thread_that_ends
from rag_backbone.checks import clause
from rag_backbone.errors import ConfigurationError, ModelLoadError
from rag_backbone.extras import needed_for
from rag_backbone.loading.cache_folder import cache_root, write_json
from rag_backbone.loading.embedded import MODEL, NAME, embedded_model_folder
from rag_backbone.loading.model_checks import refuse_adapter_folder, refuse_unless_instance, refuse_unless_plain

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from rag_backbone.engine.engine import Engine

logger = logging.getLogger(__name__)

DType = Literal["auto", "float32", "bfloat16", "float16"]


class CausalLM:
    """A decoder-only model with its tokenizer, engine and fingerprint.

    Args:
        model: Any `PreTrainedModel` that predicts the next token. It is put into evaluation mode and otherwise left as
            it is.
        tokenizer: The model's tokenizer.
        name: Name for messages and records.

    Raises:
        ConfigurationError: If the model is wrapped (a `PeftModel`, `torch.compile`, ...) or the tokenizer is not a
            tokenizer; the message shows the line to write.
        ModelLoadError: If the model is not decoder-only, or has no language-model head.

    Example:
        >>> lm = CausalLM.from_pretrained("embedded")  # doctest: +SKIP
        >>> lm.engine.generate(Request("The capital of France is", max_new_tokens=8)).text  # doctest: +SKIP
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str | None = None) -> None:
        refuse_unless_plain(model, tokenizer)
        _refuse_unless_decoder(model.config, name or type(model).__name__)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name or model.config.name_or_path or type(model).__name__
        self.loaded_with: dict[str, Any] | None = None
        """The arguments of `from_pretrained`, to load the same model again; None if the model was created in memory."""
        self._folder: Path | None = None
        self._building = threading.Lock()
        self._engine: Engine | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = NAME,
        *,
        device: str = "auto",
        dtype: DType = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> CausalLM:
        """Load a model.

        Args:
            name: `"embedded"`, a folder in Transformers' format, or a Hub id.
            device: `"auto"` uses a GPU if there is one.
            dtype: `"auto"` is bfloat16 on a GPU and float32 on a CPU, where decoding in float32 is just as fast.
            revision: Revision of a Hub id.
            trust_remote_code: Whether code from the Hub or the folder may run.

        Raises:
            ModelLoadError: If the model is missing, truncated, only available in pickled form, or not decoder-only.
        """
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigurationError(f"dtype is {dtype!r}; known: 'auto', 'float32', 'bfloat16', 'float16'")
        refuse_unless_instance("name", name, str | Path, "'embedded', a folder or a Hub id")
        with needed_for("a model in this process"):
            import torch  # noqa: F401 - before anything is downloaded
            import transformers  # noqa: F401
        embedded = str(name) == NAME
        source = embedded_model_folder() if embedded else Path(name)
        if source.is_dir():
            _check_folder(source)
            location = str(source)
        elif source.is_file():
            raise ModelLoadError(
                f"{source} is a file; a model folder in Transformers' format is needed, with config.json, "
                "tokenizer files and *.safetensors"
            )
        elif isinstance(name, Path) or str(name).startswith((".", "/", "~")):
            raise ModelLoadError(f"there is no model folder {name}; expected one with config.json and *.safetensors")
        else:
            location = str(name)
        loads = functools.partial(_load, trust_remote_code=trust_remote_code)
        model, tokenizer = in_thread_that_ends(loads, location, _device(device), dtype, revision)
        # Only the folder's name: its full path means nothing in figures and traces.
        lm = cls(model, tokenizer, name=MODEL if embedded else source.name if source.is_dir() else str(name))
        lm._folder = source if source.is_dir() else None
        again = NAME if embedded else str(source.resolve()) if source.is_dir() else str(name)
        lm.loaded_with = {"name": again, "device": device, "dtype": dtype, "revision": revision}
        return lm

    @property
    def engine(self) -> Engine:
        """The engine that owns this model, created at first use."""
        from rag_backbone.engine.engine import Engine

        with self._building:
            if self._engine is None:
                self._engine = Engine(self.model, self.tokenizer)
            return self._engine

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over config, tokenizer and weights; cached on disk for models loaded from a folder."""
        from rag_backbone.loading.fingerprint import model_fingerprint

        record = cache_root() / "fingerprints.json"
        key = None if self._folder is None else _folder_state(self._folder)
        known = _read_json(record)
        if key is not None and isinstance(known.get(key), str):
            return str(known[key])
        fingerprint = model_fingerprint(self.model, self.tokenizer)
        if key is not None:
            try:
                write_json(record, {**known, key: fingerprint})
            except OSError as error:  # a read-only cache costs the next process one second
                logger.debug("the fingerprint could not be cached: %s", error)
        return fingerprint

    @property
    def context_window(self) -> int:
        """Maximum number of tokens in a prompt and its continuation."""
        return self.engine.context_window

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(self.tokenizer.chat_template)

    def __repr__(self) -> str:
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        dtype = str(self.model.dtype).removeprefix("torch.")
        return f"CausalLM({self.name!r}, {millions:.0f}M parameters, {dtype} on {self.model.device})"


def _load(
    location: str, device: str, dtype: DType, revision: str | None, *, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from rag_backbone.loading.quiet import quiet_loading

    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(location, **common)
            _refuse_unless_decoder(config, location)
            tokenizer = AutoTokenizer.from_pretrained(location, **common)
            # use_safetensors: reading pickled weights runs code, so they are never read.
            model = AutoModelForCausalLM.from_pretrained(
                location, dtype=getattr(torch, dtype), use_safetensors=True, **common
            )
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"{location!r} could not be loaded as a causal language model: {clause(error)}. "
            "Use 'embedded', a folder with config.json, tokenizer files and *.safetensors, or a Hub id."
        ) from error
    return model.to(device), tokenizer


def _device(device: str) -> str:
    import torch

    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _refuse_unless_decoder(config: PretrainedConfig, name: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.model_type
    architectures = list(config.architectures or [])
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    # BERT-like encoders are in the mapping for use as decoders, but by default their attention is bidirectional.
    encoder = "is_decoder" in config.to_dict() and kind not in _DECODERS_WITH_FLAG and not config.is_decoder
    masked = any("MaskedLM" in a or "SequenceClassification" in a for a in architectures)
    if config.is_encoder_decoder or (kind and causal is None and not architectures) or encoder or masked:
        what = ", ".join(architectures) or kind
        raise ModelLoadError(
            f"{name} is {what}, not a decoder-only language model. "
            "A model that AutoModelForCausalLM loads to generate text is needed."
        )


_DECODERS_WITH_FLAG = {"gpt2", "gptj", "gpt_neo", "gpt_neox", "opt", "bloom"}


def _check_folder(folder: Path) -> None:
    """Refuse a folder that lacks files or has truncated ones, before anything is loaded."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():  # Transformers would load the base model and apply the adapter
        refuse_adapter_folder(folder, _read_json(adapter))
    if not (folder / "config.json").is_file():
        raise ModelLoadError(f"{folder} has no config.json, so it is not a Transformers model folder")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
        hint = (
            f"it has only pickled weights ({', '.join(pickled)}), which are never read because reading them runs "
            "code; save the model again with save_pretrained, which writes safetensors"
            if pickled
            else "it has no *.safetensors"
        )
        raise ModelLoadError(f"{folder} cannot be loaded: {hint}")
    for path in weights:
        _check_safetensors(path)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        listed = set(_read_json(index).get("weight_map", {}).values())
        if missing := listed - {path.name for path in weights}:
            raise ModelLoadError(f"{folder} lacks {', '.join(sorted(missing))}, which its index lists")


def _check_safetensors(path: Path) -> None:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (header_size,) = struct.unpack("<Q", file.read(8))
            if header_size > size:
                raise ValueError(f"the header alone should have {header_size} bytes, the file has {size}")
            header = json.loads(file.read(header_size))
        end = max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
        if 8 + header_size + end != size:
            raise ValueError(f"it should have {8 + header_size + end} bytes and has {size}")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelLoadError(f"{path} is truncated or damaged: {clause(error)}. Fetch it again.") from error


def _folder_state(folder: Path) -> str:
    """Return a key that changes when any file that the fingerprint covers changes."""
    files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".json", ".jinja", ".model"})
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return json.dumps([str(folder.resolve()), stats])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
