"""A process that sends some points to a store and is killed by SIGKILL before it closes it.

    python one_store.py KIND SETTINGS FOLDER NUM_STEPS [--close]

With `--close` it is not killed, and the run ends.
"""

import json
import os
import signal
import sys
import zlib
from pathlib import Path

from tunix_rt.tracking.store import Entry, Facts, Store, Table, store_class
from tunix_rt.tracking.tail import Point

STARTED = 1_700_000_000_000


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


HEADER = (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + b"\x08\x02\0\0\0"
PNG = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", HEADER) + _chunk(b"IDAT", zlib.compress(bytes(7))) + _chunk(b"IEND", b"")
"""Two pixels."""


def opened(kind: str, settings: dict[str, object], folder: Path) -> Store:
    """The store, opened as the same run each time."""
    store = store_class(kind)
    section = store.settings_type(**settings)
    made = store(store.address("", section), "tests", section)
    tags = {"tunix_rt.identity": "0123456789ab", "tunix_rt.key": "f00f00f00f00"}
    made.open(Entry("quickstart-01234567", tags, STARTED, folder, None, None, running=True))
    return made


def points(first: int, last: int) -> list[Point]:
    """Two metrics and a load, whose steps are seconds, with real times."""
    steps = range(first, last + 1)
    found = [Point("train/loss", step, STARTED + 1000 * step, 1 / step) for step in steps]
    found += [Point("eval/loss", step, STARTED + 1000 * step, 2 / step) for step in steps if step % 2 == 0]
    return found + [Point("system/cpu", 5 * step, STARTED + 1000 * step + 7, float(step)) for step in steps]


def everything(store: Store, folder: Path) -> None:
    """What a run that ends sends beside its points."""
    figure, report = folder / "loss.png", folder / "report.md"
    if not figure.exists():
        figure.write_bytes(PNG)
        report.write_text("# Report\n\n**half** of the answers are right\n")
    store.params(
        Facts({"training.max_steps": "6", "seed": "0", "backend.name": "torch"}, {"tunix_rt.backend": "torch"})
    )
    store.artifact("figures/loss.png", figure)
    store.artifact("report.md", report)
    rows = [["1+1=", "2", True], ["1+2=", "4|5", False]]
    store.table(Table("predictions.json", ["prompt", "answer", "correct"], rows, time=STARTED + 9000))


def main() -> None:
    kind, settings, folder, last = sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    store = opened(kind, settings, folder)
    store.metrics(points(1, last))
    everything(store, folder)
    if "--close" not in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    store.close("finished", STARTED + 10_000)


if __name__ == "__main__":
    main()
