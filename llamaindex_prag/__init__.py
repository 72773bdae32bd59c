"""Parametric RAG: documents become LoRA adapters, and answers come from them."""
