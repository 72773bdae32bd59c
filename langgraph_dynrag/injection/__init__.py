"""Where evidence goes: into the prompt, into the model's parameters, or both."""
