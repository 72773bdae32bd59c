"""Training jobs: estimated duration, and this machine's pace."""
