"""Text: sentences and words with their offsets, writing systems, chat templates, and control tokens."""
