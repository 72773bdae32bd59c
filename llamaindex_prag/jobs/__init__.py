"""Training jobs: progress, estimated duration, and this machine's pace."""
