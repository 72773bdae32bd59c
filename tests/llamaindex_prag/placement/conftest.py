"""Fixtures: the tiny model with a translator, and one trained passage."""

from tests.llamaindex_prag.translator.conftest import model, translator

__all__ = ["model", "translator"]
