"""The run folder: the single source of truth about a run."""
