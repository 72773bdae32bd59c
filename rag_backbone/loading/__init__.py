"""Loading language and embedding models: from a folder, a hub, a PyPI wheel, or a model in memory."""
