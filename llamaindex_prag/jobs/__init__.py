"""Jobs that make adapters: their estimated time, and this machine's pace."""
