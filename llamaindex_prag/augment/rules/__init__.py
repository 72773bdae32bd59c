"""Questions about a passage by rule, without a model."""
