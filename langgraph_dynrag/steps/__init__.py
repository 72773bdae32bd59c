"""Steps shared by the nodes: each takes a state and the settings, and returns an update or a part of one.

Steps do not know the nodes. Method-specific behaviour is delegated to parts of the settings.
"""
