"""Published methods as settings, and calibrated ones as files."""
