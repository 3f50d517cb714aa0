"""What of this machine works for a run, what does not, and what to type: a subject per file of `subjects/`."""
