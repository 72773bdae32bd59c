"""Human-readable records of a run: as text, as data, and as an HTML page."""
