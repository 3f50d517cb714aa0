"""What an experiment would take, before it is run."""
