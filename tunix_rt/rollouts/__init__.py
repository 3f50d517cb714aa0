"""Rollouts: answers that the model samples while it trains, their rewards, and the batches that are learned from them."""
