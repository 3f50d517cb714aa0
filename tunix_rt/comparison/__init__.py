"""Runs compared with each other: the same prompts paired, and what of a difference is beyond chance."""
