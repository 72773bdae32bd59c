"""Networks that map a document's representation to the factors of its adapter."""
