"""Prompts in, parsed predictions out: the one prediction loop."""
