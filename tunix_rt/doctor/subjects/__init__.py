"""One subject per file: its `findings(place)` looks, and changes nothing."""
