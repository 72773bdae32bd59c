"""Several sequences in one forward pass: their layout, their attention, and the prefixes that they share."""
