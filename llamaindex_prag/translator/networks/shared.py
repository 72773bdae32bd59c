"""The shared translator network: one trunk for all layers and modules.

    states of several layers, every token   (tokens, layers read, hidden), minus their mean over the corpus
      -> a projection per layer read, then attention of a few learnt queries over all tokens and layers
    representation                          (m, d)         what is stored of a document
      -> one query per row of each factor:  learnt embeddings of layer + module + row of the rank
      -> residual blocks -> a head for each kind of module and side
    row of A, row of B'                     normalised, times a gain of the adapted layer, plus a learnt part that all
                                            documents share

The norm of a generated row is set by its gain, whatever the document, so no document can break the model, and the
shared part is learnt first. It is a LoRA of its own and acts once in a mean of several documents, whose weights sum to
1; in a sum it acts once per document. The gains of `B` start small, so training starts near the base model.

The hidden states of a language model share most of their magnitude, whatever the text. `settle` subtracts this common
part, and no constant is added to what is read, so the representations of documents differ from the first step on.
Initially, attention passes on the values it finds and the residual blocks add nothing. A row of `B'` that writes to the
residual stream is then a mean of the document's own states, so even an untrained translator can produce its words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llamaindex_prag.training.factors import initial_values
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.networks.module_positions import module_positions

_GAINS = (0.3, 1.0)
"""Initial gains of `A` and `B`; a random row of `A` has norm 0.58."""
_FURTHER = 0.3
"""Initial weight of the other layers read, relative to the first."""
_FLOOR = 1e-3
"""Smallest variance of a component, as a fraction of the mean variance."""
_ASKING = 0.5
"""Initial standard deviation of the layer, module and row embeddings; their sum does not exceed what they attend to."""


class SharedNetwork(nn.Module):
    """Maps the hidden states of several layers to an adapter."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        self.layout = layout = config.layout
        places, d = module_positions(layout), config.width
        layers, modules = sorted({p.layer for p in places}), sorted({p.module for p in places})
        sizes = {p.module: (t.inputs, t.outputs) for p, t in zip(places, layout.targets, strict=True)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.read = nn.ModuleList([nn.Linear(config.hidden, d, bias=False) for _ in config.read_layers])
            self.latents = nn.Parameter(torch.randn(config.tokens, d))
            self.pooling = _Attention(d, config.heads)
            self.layer = nn.Embedding(len(layers), d)
            self.module = nn.Embedding(len(modules), d)
            self.row = nn.Embedding(layout.rank, d)
            for learnt in (self.layer, self.module, self.row):
                nn.init.normal_(learnt.weight, std=_ASKING)
            self.asking = _Attention(d, config.heads)
            self.blocks = nn.Sequential(*[_Block(d) for _ in range(config.blocks)])
            self.heads_a = nn.ModuleList([nn.Linear(d, sizes[m][0], bias=False) for m in modules])
            self.heads_b = nn.ModuleList([nn.Linear(d, sizes[m][1], bias=False) for m in modules])
        # Not trained: the mean state over the corpus.
        self.usual = nn.Parameter(torch.zeros(len(config.read_layers), config.hidden), requires_grad=False)
        self.common = nn.Parameter(initial_values(layout, config.recipe.seed))
        self.gains = nn.Parameter(torch.tensor(_GAINS).repeat(len(places), 1))
        self._targets_of = [[i for i, p in enumerate(places) if p.module == m] for m in modules]
        numbers = [(layers.index(p.layer), modules.index(p.module)) for p in places]
        self.register_buffer("_layer_of", torch.tensor([n for n, _ in numbers]), persistent=False)
        self.register_buffer("_module_of", torch.tensor([n for _, n in numbers]), persistent=False)

    @property
    def direct(self) -> list[nn.Parameter]:
        """Parameters that are adapter values themselves, or scale them.

        In one step, a value that a head computes changes by the learning rate times the sum of some hundred inputs;
        these parameters change by the learning rate alone.
        """
        return [self.common, self.gains]

    @torch.no_grad()
    def settle(self, states: list[Tensor]) -> None:
        """Initialise the network from the states of some documents of the corpus.

        Their mean is subtracted from all states. The projections read the rest along its principal components, scaled
        to equal variance, and the heads write along the same directions.
        """
        levelled = torch.cat([_levelled(document) for document in states])
        self.usual.copy_(levelled.mean(0))
        directions: list[Tensor] = []
        for i, read in enumerate(cast("Iterable[nn.Linear]", self.read)):
            apart = levelled[:, i] - self.usual[i]
            sizes, axes = torch.linalg.eigh(apart.T @ apart / len(apart))  # ascending
            count = min(len(sizes), read.weight.shape[0])
            sizes, axes = sizes[-count:].clamp_min(_FLOOR * float(sizes.mean())), axes[:, -count:]
            # Coordinates of different layers mean different things, so the first layer dominates.
            read.weight[:count] = (axes / sizes.sqrt()).T * (1.0 if i == 0 else _FURTHER)
            directions.append(axes)
        for head in cast("Iterable[nn.Linear]", [*self.heads_a, *self.heads_b]):
            if head.weight.shape[0] == len(directions[0]):  # it writes states, or reads them
                head.weight[:, : directions[0].shape[1]] = directions[0]

    def pool(self, states: list[Tensor]) -> Tensor:
        """Map each document's (tokens, layers read, hidden) states to (documents, m, d) representations."""
        found = []
        for document in states:
            normal = _levelled(document) - self.usual
            read = torch.cat([project(normal[:, i]) for i, project in enumerate(self.read)])
            found.append(self.pooling(self.latents.unsqueeze(0), read.unsqueeze(0)))
        return functional.rms_norm(torch.cat(found), self.latents.shape[-1:])

    def generate(self, pooled: Tensor) -> Tensor:
        """Map (documents, m, d) representations to (documents, layout.size) adapter values."""
        documents, rank = len(pooled), self.layout.rank
        places = self.layer(self._layer_of) + self.module(self._module_of)
        asked = (places.unsqueeze(1) + self.row.weight).flatten(0, 1)  # (targets * rank, d)
        rows = self.blocks(asked + self.asking(asked.expand(documents, -1, -1), pooled))
        rows = functional.rms_norm(rows, rows.shape[-1:]).view(documents, -1, rank, rows.shape[-1])
        parts: dict[tuple[int, int], Tensor] = {}
        for which, head_a, head_b in zip(self._targets_of, self.heads_a, self.heads_b, strict=True):
            for side, head in enumerate((head_a, head_b)):
                made = functional.normalize(head(rows[:, which]), dim=-1)  # (documents, targets of it, rank, width)
                scaled = made * self.gains[which, side, None, None]
                parts |= {(side, target): part.flatten(1) for target, part in zip(which, scaled.unbind(1), strict=True)}
        return self.common + torch.cat([parts[key] for key in sorted(parts)], 1)


def _levelled(states: Tensor) -> Tensor:
    """Normalise every state to the same norm, in float32; the first token's norm is hundreds of times the others'."""
    return functional.rms_norm(states.float(), states.shape[-1:])


class _Attention(nn.Module):
    """Multi-head cross-attention from queries to values, initialised to pass the values on unchanged."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
        # Value and output projections start as the identity.
        with torch.no_grad():
            self.attention.in_proj_weight[-width:] = torch.eye(width)
            self.attention.out_proj.weight.copy_(torch.eye(width))

    def forward(self, queries: Tensor, values: Tensor) -> Tensor:
        """Return (documents, queries, width) attended values."""
        normal = functional.rms_norm(queries, queries.shape[-1:])
        seen = functional.rms_norm(values, values.shape[-1:])
        found, _ = self.attention(normal, seen, seen, need_weights=False)
        return found


class _Block(nn.Module):
    """Residual block x + W2 gelu(W1 norm(x)), initialised to the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.outer.weight)

    def forward(self, states: Tensor) -> Tensor:
        """Return (documents, rows, width) states."""
        normal = functional.rms_norm(states, states.shape[-1:])
        return states + self.outer(functional.gelu(self.inner(normal)))
