"""Methods whose model writes its own searches between tags: formats, prompts, and condensed results."""
