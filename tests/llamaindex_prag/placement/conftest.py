"""The tiny model with a translator, and one trained passage."""

from tests.llamaindex_prag.translator.conftest import lm, model, store, translator

__all__ = ["lm", "model", "store", "translator"]
