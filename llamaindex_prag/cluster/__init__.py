"""Training the adapters of a corpus on a Ray cluster; needs the extra `ray`."""
