"""The inference engine: one thread serves one model, batches requests, and returns tokens with their signals."""
