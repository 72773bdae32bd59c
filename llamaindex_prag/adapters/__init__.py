"""LoRA adapters: recipe, memory layout, and the slots on a model that hold the active ones."""
