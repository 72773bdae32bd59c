"""LoRA adapters: their recipe and layout, the slots that they occupy on a model, and which of them are active."""
