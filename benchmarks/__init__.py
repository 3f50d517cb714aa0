"""The claims about speed in docs/backends.md, reproducible: `python -m benchmarks.training`, `.generation`, `.startup`;
and those about several devices in docs/devices.md: `.scaling`, and on a machine with GPUs `.gpu`.

Each prints a table and, with `--json FILE`, writes every number.
"""
