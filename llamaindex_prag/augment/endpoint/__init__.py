"""Questions about a document, written by a model behind an endpoint."""
