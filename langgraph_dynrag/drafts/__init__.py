"""Drafts: generated text that is not accepted yet, its per-token signals, and how a model's reply becomes a draft."""
