"""Training a translator: corpus, objective, validation, and the state to resume from."""
