"""Rollouts: what the model samples while it trains, its rewards, and the batches that are learned from it."""
