"""What a process does for `benchmarks.scaling` and `benchmarks.gpu`: trains a fresh model on a mesh, and measures.

Each function is called by `benchmarks.isolated` with the fields of a `Run` and returns JSON. Sizes are bytes of one
device, times seconds.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks import collectives
from benchmarks.fresh import RATE, Run, architecture_of, flops_per_token, greedy, model_folder, prompts
from tunix_rt.backends import registry, sizes
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import Backend, State
from tunix_rt.backends.memory import asked
from tunix_rt.config.choices import BACKENDS
from tunix_rt.machine import cache_folder, usable_memory
from tunix_rt.plan.estimate import training_phases
from tunix_rt.plan.traffic import traffic

WARM_UPS = 2
"""Updates before the clock starts: compilation, first allocations."""
Found = dict[str, Any]


def draw(root: str, model: str) -> Found:
    """Draw a model, so that no other part has to wait for it."""
    return {"folder": str(model_folder(Path(root), model))}


def sent(root: str, run: Found) -> Found:
    """Bytes that a device sends in one step: counted, and by theory; and what the leader tells each follower."""
    from tunix_rt.backends.processes.channel import Channel

    made = Run(**run)
    engine, state, folder = _ready(made, root)
    told, send = [0], Channel.send_packed

    def counting(channel: Channel, data: bytes) -> None:
        told[0] += len(data)
        send(channel, data)

    Channel.send_packed = counting  # type: ignore[method-assign]
    with collectives.of_torch() if made.backend == "torch" else collectives.of_jax() as counted:
        _step(engine, state, made, 0)
    query = made.query(architecture_of(folder), made.rows_at_once)
    theory = traffic(query, made.fold, made.length)
    by_kind = {kind: getattr(theory, kind) for kind in ("all_gather", "reduce_scatter", "all_reduce")}
    followers = made.devices - 1 if BACKENDS[made.backend].process_per_device else 0
    channel = told[0] // followers if followers else 0
    return {"counted": dict(counted), "theory": by_kind, "channel": channel}


def memory(root: str, run: Found) -> Found:
    """Peak memory of one device above what its process holds before the weights: measured, and what `plan` says."""
    made = Run(**run)
    engine = _engine(made)
    before = _watch_memory()
    state = engine.load(model_folder(Path(root), made.model), made.setup)
    for step in range(WARM_UPS):
        state = _step(engine, state, made, step)[0]
    return {"measured": _peak(made, engine, before), "plan": planned(made, engine, root)}


def laps(root: str, run: Found, count: int) -> Found:
    """Wall and CPU time of laps of `run.steps` updates, after the warm-up; CPU time of all processes together."""
    made = Run(**run)
    engine, state, _ = _ready(made, root)
    for step in range(WARM_UPS):
        state = _step(engine, state, made, step)[0]
    found = []
    for _ in range(count):
        cpu, wall = _cpu_seconds(), time.perf_counter()
        state = _updates(engine, state, made, made.steps)
        found.append({"wall": time.perf_counter() - wall, "cpu": _cpu_seconds() - cpu})
    return {"laps": found, "tokens": made.steps * made.rows * made.length}


def speed(root: str, run: Found, seconds: float, gemm: int) -> Found:
    """Tokens per second of the whole mesh over at least `seconds`, the share of the peak, and memory against plan.

    Rows of a device at once: as many of its rows as `plan` lets it begin with; fewer after a lack of memory.
    """
    made = Run(**run)
    engine = _engine(made)
    peak = matmul_peak(made, gemm)
    before = _watch_memory()
    folder = model_folder(Path(root), made.model)
    engine.rows_at_once = _rows_to_begin_with(made, folder)
    state, steps, started = engine.load(folder, made.setup), 0, time.perf_counter()
    for step in range(WARM_UPS):
        state, _ = _step(engine, state, made, step)
    warm_up, started = time.perf_counter() - started, time.perf_counter()
    while steps == 0 or time.perf_counter() - started < seconds:
        state = _updates(engine, state, made, made.steps)
        steps += made.steps
    spent = time.perf_counter() - started
    rate = steps * made.rows * made.length / spent
    each = flops_per_token(architecture_of(folder), made.length)
    return {
        "tokens_per_second": rate,
        "seconds_per_step": spent / steps,
        "steps": steps,
        "warm_up": warm_up,
        "rows_at_once": engine.rows_at_once,
        "peak_flops": peak,
        "share_of_peak": rate * each / (peak * made.devices),
        "measured": _peak(made, engine, before),
        "device": engine.placement.devices[0],
        **_planned_if_possible(made, engine, root),
    }


def numbers(root: str, run: Found) -> Found:
    """Loss and gradient norm of some updates, and greedy answers of the model that they give."""
    made = Run(**run)
    engine, state, _ = _ready(made, root)
    losses, norms = [], []
    for step in range(made.steps):
        state, found = _step(engine, state, made, step)
        losses.append(found["loss"])
        norms.append(found["grad_norm"])
    asked_of = prompts(made, made.prompts)
    answers: list[list[int]] = [[] for _ in asked_of]
    for piece in engine.generate(state, asked_of, greedy(made.new_tokens), range(len(asked_of))):
        answers[piece.index] += piece.ids.tolist()
    return {"losses": losses, "norms": norms, "answers": answers}


def long_rows(root: str, run: Found) -> Found:
    """Log-probabilities of rows with many positions, and loss and gradient norm of an update on them."""
    made = Run(**run)
    engine, state, _ = _ready(made, root)
    values = engine.fetch(engine.logprobs(state, made.batch(0)))["logprobs"]
    _, found = _step(engine, state, made, 0)
    return {"logprobs": values[:, :: max(1, made.length // 512)].tolist(), **found}


def _engine(run: Run) -> Backend:
    engine = registry.create(run.engine, run.hardware, cache_folder())
    engine.rows_at_once = run.rows_at_once
    return engine


def _ready(run: Run, root: str) -> tuple[Backend, State, Path]:
    folder = model_folder(Path(root), run.model)
    engine = _engine(run)
    return engine, engine.load(folder, run.setup), folder


def _step(engine: Backend, state: State, run: Run, step: int) -> tuple[State, dict[str, float]]:
    batch = run.batch(step)
    state, measured = engine.train_step(state, batch, RATE)
    found = engine.fetch(measured)
    return state, {"loss": float(found["loss_sum"]) / batch.divisor, "grad_norm": float(found["grad_norm"])}


def _updates(engine: Backend, state: State, run: Run, count: int) -> State:
    """Updates as the training loop makes them: the device is waited for after the last one."""
    batches = [run.batch(step) for step in range(count)]
    measured: Any = None
    for batch in batches:
        state, measured = engine.train_step(state, batch, RATE)
    engine.fetch(measured)
    return state


def planned(run: Run, engine: Backend, root: str) -> int:
    """Bytes of a device in the largest phase of training, by `plan`, with the rows that were computed at once."""
    architecture = architecture_of(model_folder(Path(root), run.model))
    phases, _ = training_phases(run.query(architecture, engine.rows_at_once))
    return max(sum(phases[name].values()) for name in ("load", "train"))


def _planned_if_possible(run: Run, engine: Backend, root: str) -> Found:
    """The same; if it cannot be told, why not, so that what was measured is not lost."""
    try:
        return {"plan": planned(run, engine, root)}
    except Exception as error:
        return {"plan": None, "why_no_plan": f"{type(error).__name__}: {error}"}


def _rows_to_begin_with(run: Run, folder: Path) -> int:
    limit = usable_memory() if run.platform == "cpu" else _of_device(run, "device_memory")
    most = Fold.of(run.rows, run.rows_at_once, run.fold.num_row_ranks).local_rows
    query = run.query(architecture_of(folder), None)
    return sizes.rows_that_fit(query, run.length, most, sizes.fillable(limit, run.platform))


def _of_device(run: Run, function: str) -> int:
    known = asked(run.backend, function)
    assert known is not None, f"{run.backend} does not say its {function}"
    return known(0)


def _processes() -> list[psutil.Process]:
    """This one and those that it leads."""
    own = psutil.Process()
    return [own, *own.children()]


def _cpu_seconds() -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _processes())


def _status(process: psutil.Process, field: str) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _watch_memory() -> dict[int, int]:
    """Resident bytes of each process by id; from now on the system counts their peaks anew."""
    found = {}
    for process in _processes():
        with suppress(OSError):
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        found[process.pid] = _status(process, "VmRSS")
    return found


def _peak(run: Run, engine: Backend, before: dict[int, int]) -> list[int]:
    """Of each process on the CPU, above `before`, for one of its devices; elsewhere of the first device."""
    if engine.placement.platform != "cpu":
        return [_of_device(run, "peak_memory")]
    devices = 1 if BACKENDS[run.backend].process_per_device else run.devices
    processes = [process for process in _processes() if process.pid in before]
    return [(_status(process, "VmHWM") - before[process.pid]) // devices for process in processes]


def matmul_peak(run: Run, size: int) -> float:
    """FLOPs per second of products of two matrices [size, size] in bfloat16 on the first device, the best of 5 laps."""
    lap = _torch_products if run.backend == "torch" else _jax_products
    repeats = 10
    return max(2 * size**3 * repeats / lap(run, size, repeats) for _ in range(5))


def _torch_products(run: Run, size: int, repeats: int) -> float:
    import torch

    device = torch.device("cpu" if run.platform == "cpu" else "cuda")
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    made = left @ right
    _wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        torch.mm(left, right, out=made)
    _wait(device)
    return time.perf_counter() - started


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _jax_products(run: Run, size: int, repeats: int) -> float:
    import jax
    import jax.numpy as jnp

    left, right = (jax.random.normal(jax.random.key(seed), (size, size), jnp.bfloat16) for seed in (0, 1))
    product = jax.jit(lambda a, b: jax.lax.dot(a, b, precision="default"))
    product(left, right).block_until_ready()
    started = time.perf_counter()
    for _ in range(repeats):
        made = product(left, right)
    made.block_until_ready()
    return time.perf_counter() - started


def present(backend: str, platform: str) -> list[str]:
    """Names of the devices that a backend finds."""
    if backend == "torch":
        import torch

        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    import jax

    return [device.device_kind for device in jax.devices(platform)]
