"""The events of a run: typed records that traces, streams and reports are built from."""
