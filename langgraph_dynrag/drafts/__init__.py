"""Drafts: what a model wrote tentatively, its tokens with their signals, and how a reply becomes a draft."""
