"""Configuration of a translator: the model it makes adapters for, what it reads, and its network.

Holds everything that the weights depend on, as plain data; configuration and weights form a checkpoint. Does not import
torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from llamaindex_prag.adapters.layout import Layout
from llamaindex_prag.adapters.recipe import DISTILL, PRAG, Recipe
from rag_backbone.errors import ConfigurationError

if TYPE_CHECKING:
    from rag_backbone.loading.causal_lm import CausalLM

NetworkKind = Literal["dyprag", "shared"]
Scaling = Literal["paper", "reference"]
FORMAT = 1
_SIZES = ("hidden", "width", "tokens", "heads", "blocks", "window")


@dataclass(frozen=True, kw_only=True)
class TranslatorConfig:
    """Configuration of a translator, as stored in a checkpoint.

    `TranslatorConfig.of` derives it from a model and a recipe.
    """

    kind: NetworkKind
    model: str
    """Fingerprint of the base model."""
    recipe: Recipe
    """Recipe of the adapters; `layout` follows from it and the model, and its questions train the translator."""
    layout: Layout
    scale: float
    """Factor that multiplies `B A`."""
    hidden: int
    """Width of the base model's hidden states."""
    read_layers: tuple[int, ...]
    """Decoder layers whose output is read; the number of layers stands for the state after the final norm."""
    width: int
    """Width of the hidden layer (`dyprag`, the paper's p) or of the trunk (`shared`)."""
    tokens: int
    """Number of vectors in a document's representation."""
    heads: int = 4
    blocks: int = 2
    """Number of residual blocks in the trunk (`shared`)."""
    window: int = 1024
    """Maximum number of tokens read at once; longer documents are read in pieces of this length."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.recipe.check_plain("a translator")
        if self.recipe.sampled_softmax is not None:
            raise ConfigurationError(
                f"the recipe's sampled_softmax is {self.recipe.sampled_softmax}, which the training of a translator "
                "does not use; leave it out"
            )
        if self.kind not in get_args(NetworkKind):
            raise ConfigurationError(f"kind is {self.kind!r}; known: {', '.join(get_args(NetworkKind))}")
        for name in _SIZES:
            if (value := getattr(self, name)) < 1:
                raise ConfigurationError(f"{name} is {value}; at least 1 is needed")
        if not self.read_layers or min(self.read_layers) < 0:
            raise ConfigurationError(f"read_layers is {self.read_layers}; name at least one layer, counted from 0")
        if self.kind == "dyprag" and (self.tokens != 1 or len(self.read_layers) != 1):
            raise ConfigurationError(
                "kind='dyprag' reads one state, that of the last token; use kind='shared' to read more"
            )
        if self.kind == "shared" and self.width % self.heads:
            raise ConfigurationError(f"width is {self.width}; it must be a multiple of heads, which is {self.heads}")
        if self.representation_bytes > 4096:
            raise ConfigurationError(
                f"a representation of {self.tokens} vectors of {self.vector} values takes {self.representation_bytes} "
                "bytes; at most 4096 are kept per document. Choose fewer tokens or a smaller width."
            )

    @classmethod
    def of(
        cls,
        lm: CausalLM,
        kind: NetworkKind = "shared",
        *,
        recipe: Recipe | None = None,
        scaling: Scaling = "paper",
        **changes: Any,
    ) -> Self:
        """Return the configuration of a translator for a model.

        Args:
            lm: The base model.
            kind: `"dyprag"` is the published network (Tan et al. 2025, arXiv 2503.23895): a pair of small networks for
                every adapted layer. `"shared"` is this project's network, with one trunk for all layers.
            recipe: Recipe of the adapters. None for `prag` with `dyprag` and `distill` with `shared`.
            scaling: Only for `dyprag`. `"paper"` multiplies its adapters by alpha / rank, like the adapters that it
                imitates; `"reference"` does not, as in the released code, which makes them 16 times weaker.
            changes: Values of other fields.

        Raises:
            ConfigurationError: If the values do not describe a possible translator.
        """
        from llamaindex_prag.adapters.targets import layout_of

        if scaling not in get_args(Scaling):
            raise ConfigurationError(f"scaling is {scaling!r}; known: {', '.join(get_args(Scaling))}")
        if kind == "shared" and scaling != "paper":
            raise ConfigurationError("scaling is for kind='dyprag'; kind='shared' uses its recipe's alpha / rank")
        recipe = recipe or (PRAG if kind == "dyprag" else DISTILL)
        count = len(lm.model.get_decoder().layers)
        layout = layout_of(lm.model, rank=recipe.rank, targets=recipe.targets, layers=recipe.layers)
        form: dict[str, Any] = {
            "read_layers": (count,) if kind == "dyprag" else tuple(sorted({0, count // 2, count})),
            "width": 32 if kind == "dyprag" else 256,
            "tokens": 1 if kind == "dyprag" else 8,
            "scale": 1.0 if scaling == "reference" else recipe.scale,
            "window": min(1024, lm.context_window),
        }
        if unknown := sorted(set(changes) - {f.name for f in fields(cls)}):
            raise ConfigurationError(f"a translator has no {', '.join(unknown)}")
        return cls(
            kind=kind,
            model=lm.fingerprint,
            recipe=recipe,
            layout=layout,
            hidden=lm.model.get_input_embeddings().weight.shape[1],
            **form | changes,
        )

    @property
    def vector(self) -> int:
        """Number of values in one vector of a representation."""
        return self.hidden if self.kind == "dyprag" else self.width

    @property
    def representation_bytes(self) -> int:
        """Size of a document's representation: one byte per value and a float32 scale per vector."""
        return self.tokens * (self.vector + 4)

    def changed(self, **changes: Any) -> Self:
        """Return a copy of this configuration with some values changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain data, ready for JSON."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        parts = {
            "recipe": self.recipe.to_dict(),
            "layout": self.layout.to_dict(),
            "read_layers": list(self.read_layers),
        }
        return {"format": FORMAT} | found | parts

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build the configuration from the data that `to_dict` returns.

        Raises:
            ConfigurationError: If the data does not describe a translator that this release can read.
        """
        if data.get("format") != FORMAT:
            raise ConfigurationError(
                f"the translator has format {data.get('format')!r}; this release reads format {FORMAT}"
            )
        try:
            values = {k: v for k, v in data.items() if k != "format"}
            values["recipe"] = Recipe.from_dict(values["recipe"])
            values["layout"] = Layout.from_dict(values["layout"])
            values["read_layers"] = tuple(int(i) for i in values["read_layers"])
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"this is not the description of a translator: {error!r}") from error
