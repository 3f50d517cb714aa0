"""The torch backend. Importing it sets how torch's idle CPU threads wait, before torch itself is loaded.

They spin by default. If another process (a sync process, a second run) takes one of two cores, a step of
the quickstart then costs 70 to 150 CPU-milliseconds instead of the 33 that it costs when they sleep (measured).
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
