"""Handling of the graph's input: validation, the question of a conversation, and rewriting it to stand alone."""
