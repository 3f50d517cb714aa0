"""Processes of one job: one leads, the others follow it over the interface `Backend`."""
