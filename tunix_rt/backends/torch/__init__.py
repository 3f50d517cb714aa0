"""The torch backend. Importing it sets how torch's idle CPU threads wait, before torch itself is loaded.

They spin by default. If another process (a sync process, a second run) takes one of two cores, a step of the quickstart
then costs 70 to 150 CPU-milliseconds instead of the 33 that it costs when they sleep at once; but then every operation
has to wake them. Spinning for some microseconds first (GNU's OpenMP; others sleep) it takes 17 ms by the clock instead
of 28 where nothing else runs, and 35 instead of 26 where something does (measured).
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
