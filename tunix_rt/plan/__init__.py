"""What an experiment would need, before it is run."""
