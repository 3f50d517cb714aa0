"""What a record is good for: run again and compare, exported and verified. Sees the whole config."""
