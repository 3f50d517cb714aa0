"""The training loop and what it needs: rates, cadence, stopping, checkpoints. It handles numbers only, no text."""
