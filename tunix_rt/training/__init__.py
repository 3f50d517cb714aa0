"""The one training loop and what it needs: rates, cadence, stopping, checkpoints. Numbers only, no text."""
