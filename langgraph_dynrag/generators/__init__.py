"""Models behind the graph: in this process, behind an OpenAI-compatible endpoint, or any chat model."""
