"""Training the adapters of many documents at once."""
