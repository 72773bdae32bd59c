"""A hypernetwork that maps a document's representation to its adapter: knowledge in the weights without training."""
