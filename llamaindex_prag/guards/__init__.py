"""Measured limits for adapters: forgetting, and documents that contradict each other."""
