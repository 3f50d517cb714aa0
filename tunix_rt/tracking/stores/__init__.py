"""One tracker per file: `NAME.py` has a `STORE`, a subclass of `tracking.store.Store`; `_name.py` is its helper."""
