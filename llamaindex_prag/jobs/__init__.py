"""Jobs that make adapters: their progress, their estimated time, and this machine's pace."""
