"""Augmentation: questions and rewritings of a document, written by a model or made by rule."""
