"""What the README claims about speed, reproducible: `python -m benchmarks.training`, `.generation`, `.startup`.

Each prints a table of ratios and, with `--json FILE`, leaves every number behind.
"""
