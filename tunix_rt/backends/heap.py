"""The heap of a process that computes on the CPU: when freed memory is returned to the system, and when it is kept.

Tensors come from glibc's heap. Memory freed there stays with the process, in holes that the next tensors may not
fit into. Without glibc these functions do nothing. Independent of the framework.
"""

from __future__ import annotations

import ctypes
import gc
import sys

_ours = False
"""Whether this process runs only tunix_rt, and is not a notebook or service that calls it among other things."""
_last_method: str | None = None
"""The backend method called last; None if memory is to be returned before the next one, whichever it is."""


def own_process() -> None:
    """Declare that this process runs nothing but tunix_rt, so that its allocator may be tuned for it."""
    global _ours
    _ours = True


def pass_over_imports() -> None:
    """Let Python's collector of cycles pass over what is there now, a framework's modules; only after `own_process`.

    It would look through their 300,000 objects again and again: half a second of the quickstart's 24.
    """
    if _ours:
        gc.freeze()


def trim_between_phases(method: str) -> None:
    """Return free memory to the system when the backend switches to another method.

    Memory freed by one method does not suit the next one, and small allocations fragment it (training SmolLM2-135M
    under jax: 4.6 GB instead of 3.2; answering after training with LoRA under torch: 2.5 GB instead of 2.0).
    """
    global _last_method
    if method != _last_method:
        give_back()
    _last_method = method


def give_back() -> None:
    """Return free memory to the system; the next method, whichever it is, does so again."""
    global _last_method
    _last_method = None
    if _glibc("malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def retain_freed_memory() -> None:
    """Let glibc keep all freed memory until `give_back`, in one heap for all threads; only after `own_process`.

    For a framework that allocates a large block at each step: the kernel would clear every page each time. Four steps
    of a 10 M-parameter model under jax took 14.5 CPU-seconds; 20.7 when blocks of 1 GiB and free memory beyond 2 GiB
    were returned. It cannot be undone, so other processes keep their allocator as it is.
    """
    if _ours and _glibc("mallopt"):
        libc = ctypes.CDLL(None)
        arena_max, mmap_max, trim_threshold, never = -8, -4, -1, -1
        libc.mallopt(arena_max, 1)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, never)


def _glibc(function: str) -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), function)
