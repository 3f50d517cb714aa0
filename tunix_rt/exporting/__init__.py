"""A run's model in the forms that other programs take: GGUF, an Ollama folder, a model card, a hub's repository."""
