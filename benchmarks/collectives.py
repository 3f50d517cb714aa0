"""Bytes that one device sends in a step, counted: torch's at the calls of its collectives, jax's in the program.

Messages are converted as plan/traffic.py does, by the theory of rings: of an all-gather or reduce-scatter of n bytes
among k devices each sends n (k - 1) / k, of an all-reduce twice that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

Kind = Literal["all_gather", "reduce_scatter", "all_reduce"]
Sent = Counter[Kind]
"""Bytes by kind; small ones too (the loss, the norm)."""
SHARES: dict[Kind, int] = {"all_gather": 1, "reduce_scatter": 1, "all_reduce": 2}


def share(kind: Kind, size: int, devices: int) -> int:
    """What each of so many devices sends of `size` bytes: of an all-gather its result, else what goes in."""
    return SHARES[kind] * size * (devices - 1) // devices


@contextmanager
def of_torch() -> Iterator[Sent]:
    """Counts what this process sends to others within the block."""
    import torch.distributed as dist

    sent: Sent = Counter()
    names = {"all_reduce": ("all_reduce", 0), "all_gather_into_tensor": ("all_gather", 0)}
    watched: dict[str, tuple[Any, int]] = {**names, "reduce_scatter_tensor": ("reduce_scatter", 1)}
    before = {name: getattr(dist, name) for name in watched}

    def counting(name: str) -> Any:
        kind, place = watched[name]

        def call(*arguments: Any, **named: Any) -> Any:
            whole = arguments[place]
            group = named.get("group") or next((one for one in arguments[2:] if hasattr(one, "size")), None)
            sent[kind] += share(kind, whole.numel() * whole.element_size(), dist.get_world_size(group))
            return before[name](*arguments, **named)

        return call

    for name in watched:
        setattr(dist, name, counting(name))
    try:
        yield sent
    finally:
        for name, function in before.items():
            setattr(dist, name, function)


@contextmanager
def of_jax() -> Iterator[Sent]:
    """Counts what the programs of a step send that are called within the block."""
    from tunix_rt.backends.jax import backend

    sent: Sent = Counter()
    before = {name: getattr(backend, name) for name in ("gradients", "apply_gradients")}

    def counting(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            sent.update(of_program(function.lower(*arguments, **named).compile().as_text()))
            return function(*arguments, **named)

        return call

    for name, function in before.items():
        setattr(backend, name, counting(function))
    try:
        yield sent
    finally:
        for name, function in before.items():
            setattr(backend, name, function)


OPERATION = re.compile(r" = (\(.*?\)|\S+) (all-gather|reduce-scatter|all-reduce)\(")
OTHERS = re.compile(r" (all-to-all|collective-permute|(?:all-gather|reduce-scatter|all-reduce)-start)\(")
CALLED = re.compile(r"(?:body|calls|to_apply|true_computation|false_computation)=%([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
BEGINS = re.compile(r"^(ENTRY )?%([\w.\-]+) .*\{$")
ARRAY = re.compile(r"\b([a-z]+\d+)\[([\d,]*)\]")
GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\])")


def of_program(text: str) -> Sent:
    """What a device sends in a program in the text form of XLA's HLO, loops as often as they run."""
    lines, entry = _computations(text)
    times = Counter({entry: 1})
    for name in _callers_first(lines, entry):
        for line in lines[name]:
            for called in _called(line):
                trips = TRIPS.search(line)
                times[called] += times[name] * (int(trips[1]) if trips else 1)
    sent: Sent = Counter()
    for name, each in lines.items():
        for line in each:
            if times[name] and (found := _message(line)):
                sent[found[0]] += times[name] * found[1]
    return sent


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    lines: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if begins := BEGINS.match(line):
            name = begins[2]
            lines[name] = []
            entry = name if begins[1] else entry
        elif name:
            lines[name].append(line)
    return lines, entry


def _called(line: str) -> list[str]:
    listed = BRANCHES.search(line)
    more = [name.strip().lstrip("%") for name in listed[1].split(",")] if listed else []
    return [*CALLED.findall(line), *more]


def _callers_first(lines: dict[str, list[str]], entry: str) -> list[str]:
    """Computations, each after all that call it."""
    order: list[str] = []
    done: set[str] = set()

    def visit(name: str) -> None:
        if name not in done and name in lines:
            done.add(name)
            for line in lines[name]:
                for called in _called(line):
                    visit(called)
            order.append(name)

    visit(entry)
    return order[::-1]


def _message(line: str) -> tuple[Kind, int] | None:
    """The kind of a collective and the bytes that a device sends in it."""
    if other := OTHERS.search(line):
        raise ValueError(f"{other[1]} is not counted")
    found = OPERATION.search(line)
    if found is None:
        return None
    kind: Kind = next(one for one in get_args(Kind) if one == found[2].replace("-", "_"))
    groups = GROUPS.search(line)
    assert groups is not None, line
    devices = int(groups[2]) if groups[2] else len(groups[1].split(","))
    size = sum(_bytes(*array) for array in ARRAY.findall(found[1]))
    return kind, share(kind, size * (devices if kind == "reduce_scatter" else 1), devices)


def _bytes(kind: str, shape: str) -> int:
    bits = int(re.sub(r"\D", "", kind))
    count = 1
    for extent in filter(None, shape.split(",")):
        count *= int(extent)
    return count * bits // 8
