"""What nodes do in common, step by step: each takes a state and the settings, and returns an update or a part of one.

Steps know no nodes. What a method does in its own way, they ask of the settings' parts.
"""
