"""Self-RAG: a model that judges whether it needs passages, and which of its continuations is the best."""
