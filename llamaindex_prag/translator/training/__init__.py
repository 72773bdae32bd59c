"""Training a translator: corpus, objectives, validation, and the saved state from which training resumes."""
