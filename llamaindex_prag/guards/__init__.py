"""Measured limits on what adapters may do: forgetting, and documents that contradict each other."""
