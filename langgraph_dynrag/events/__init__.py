"""The events of a run: typed records that the trace, streams and reports are made of."""
