"""The claims about speed in docs/backends.md, reproducible: `python -m benchmarks.training`, `.generation`, `.startup`.

Each prints a table of ratios and, with `--json FILE`, writes every number.
"""
