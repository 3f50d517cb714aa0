"""Prompts in, parsed predictions out: the prediction loop."""
