"""What happened in a run, to read: as text, as data, and as an HTML page."""
