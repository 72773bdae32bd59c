"""Generators: the models behind the graph, in-process, behind an OpenAI-compatible endpoint, or any chat model."""
