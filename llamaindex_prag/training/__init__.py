"""Training: many documents' adapters at once."""
