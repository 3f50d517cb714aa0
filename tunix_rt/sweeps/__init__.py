"""Sweeps: runs their members, and leaves the outcome of each one and a ranked table."""
