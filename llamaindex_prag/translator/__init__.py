"""A hypernetwork from a document's representation to its adapter: knowledge in the weights without training."""
