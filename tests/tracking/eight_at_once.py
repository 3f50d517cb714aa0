"""Eight processes open the same SQLite store that does not exist yet, at the same moment.

    python eight_at_once.py FILE

Forked after MLflow is imported, which takes seconds. Prints the experiment ids that they got, and exit codes.
"""

import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from tunix_rt.tracking.store import Entry
from tunix_rt.tracking.stores.mlflow import MlflowStore, store_errors

PROCESSES = 8


def work(uri: str, number: int, begin: float, out: Connection) -> None:
    time.sleep(max(begin - time.monotonic(), 0))
    tags = {"tunix_rt.identity": "0123456789ab", "tunix_rt.key": str(number)}
    store = MlflowStore(uri, "together")
    run_id = store.open(Entry("run", tags, 1_700_000_000_000, Path(), None, None, running=True))
    store.close("finished", None)
    out.send(run_id)


def main() -> None:
    uri = f"sqlite:///{sys.argv[1]}"
    with store_errors(uri):
        import mlflow.tracking  # noqa: F401
    fork = multiprocessing.get_context("fork")
    begin = time.monotonic() + 0.5
    pipes = [fork.Pipe(duplex=False) for _ in range(PROCESSES)]
    processes = [fork.Process(target=work, args=(uri, number, begin, out)) for number, (_, out) in enumerate(pipes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print([process.exitcode for process in processes])


if __name__ == "__main__":
    main()
