"""Uses of a record: rerun and compare, export and verify. Works with the complete config."""
