"""DyPRAG's parameter translator (Tan et al. 2025, arXiv 2503.23895, section 3.2).

    e: the base model's state after the final norm, at the document's last token         (hidden)
    A^l = reshape(W2 relu(W1 [e; l]))      W1 (p, hidden + 1),  W2 (r in, p)              for each adapted layer l
    B^l = likewise, with separate matrices

There are no biases, and layers and modules share nothing: 3 L (2 p (h + 1) + p r (h + f)) parameters for the three
feed-forward projections of L layers. The layer's number is an input value, not an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.networks.module_positions import ModulePosition, module_positions

_SPREAD = 1e-7
"""Standard deviation of all initial weights."""


class DyPRAGNetwork(nn.Module):
    """Maps one hidden state to an adapter."""

    def __init__(self, config: TranslatorConfig) -> None:
        super().__init__()
        layout, p = config.layout, config.width
        self.layout = layout
        self._places: list[ModulePosition] = module_positions(layout)
        generator = torch.Generator().manual_seed(config.seed)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).normal_(0, _SPREAD, generator=generator))

        count = len(layout.targets)
        self.first_a, self.first_b = drawn(count, p, config.hidden + 1), drawn(count, p, config.hidden + 1)
        self.second_a = nn.ParameterList([drawn(layout.rank * t.inputs, p) for t in layout.targets])
        self.second_b = nn.ParameterList([drawn(layout.rank * t.outputs, p) for t in layout.targets])
        self.register_buffer("_numbers", torch.tensor([float(p.layer) for p in self._places]), persistent=False)

    def pool(self, states: list[Tensor]) -> Tensor:
        """Map each document's (tokens, 1, hidden) states to (documents, 1, hidden): the last token's state."""
        return torch.stack([document[-1].float() for document in states])

    def generate(self, pooled: Tensor) -> Tensor:
        """Map (documents, 1, hidden) states to (documents, layout.size) adapter values."""
        state = pooled[:, 0]
        numbers = self._numbers.expand(len(state), -1)  # type: ignore[operator]
        entered = torch.cat([state.unsqueeze(1).expand(-1, numbers.shape[1], -1), numbers.unsqueeze(2)], 2)
        inner_a, inner_b = (torch.einsum("dth,tph->tdp", entered, w).relu() for w in (self.first_a, self.first_b))
        parts_a = [inner @ w.T for inner, w in zip(inner_a, self.second_a, strict=True)]
        parts_b = [self._transposed(inner @ w.T) for inner, w in zip(inner_b, self.second_b, strict=True)]
        return torch.cat([*parts_a, *parts_b], 1)

    def _transposed(self, b: Tensor) -> Tensor:
        """Transpose `B` (out, rank), as the paper reshapes it, to `B'` (rank, out), as the layout stores it."""
        return b.view(len(b), -1, self.layout.rank).transpose(1, 2).reshape(len(b), -1)
