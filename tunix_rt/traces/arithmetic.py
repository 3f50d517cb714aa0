"""Arithmetic problems drawn from a seed, with every digit step written out.

The problems depend on operation, digits, wording and seed only: the arms of a comparison over `steps` share ids,
prompts and splits. In symbols all fields have a fixed width, so that every trace of a dataset is equally long; the
wordings of `scratchpads` have no padding.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from tunix_rt.config.dataset import ArithmeticSource
from tunix_rt.files import JsonObject
from tunix_rt.traces.draws import distinct_places, generator
from tunix_rt.traces.scratchpads import FORMATS
from tunix_rt.traces.trace import Step, Trace

COLUMNS = ("ones", "tens", "hundreds", "thousands", "ten thousands", "hundred thousands")
NAMES = "Ana Ben Eva Gus Ida Jon Kim Leo Mia Noah Ola Pia Raj Sam Tom Zoe".split()
THINGS = "apple book card coin egg key pen plum shell stamp ticket toy".split()
CONTAINERS = "bag basket crate jar".split()

Carry = Callable[[int, int], int]
"""(true carry, largest possible carry) → the carry that is written and propagated."""


class DigitStep(NamedTuple):
    """The work on one column: `x * y + carry` or `x + y + carry`; a first product has no carry to write."""

    sign: Literal["*", "+"]
    x: int
    y: int
    carry: int | None

    @property
    def type(self) -> str:
        """The type of the trace's step."""
        return "product" if self.sign == "*" else "sum"

    @property
    def result(self) -> int:
        """At most two digits; the first goes to the next column."""
        return (self.x * self.y if self.sign == "*" else self.x + self.y) + (self.carry or 0)

    def __str__(self) -> str:
        carry = "" if self.carry is None else f"+{self.carry}"
        return f"{self.x}{self.sign}{self.y}{carry}={self.result:02d}"


def generate(source: ArithmeticSource, seed: int) -> Iterator[Trace]:
    """Distinct problems in the order drawn; all ordered pairs, in ascending order, if `num_traces` is null.

    A larger `num_traces` begins with the problems of a smaller one. Raises DataError if fewer exist.
    """
    first, second = (_operands(source, digits) for digits in source.digits)
    total, wanted = len(first) * len(second), f"digits={list(source.digits)}"
    for place in distinct_places(source.num_traces, total, seed, wanted):
        yield problem(source, seed, first[place // len(second)], second[place % len(second)])


def _operands(source: ArithmeticSource, digits: int) -> range:
    fewest = digits if source.fewest_digits is None else source.fewest_digits
    return range(0 if source.fewest_digits == 1 else 10 ** (fewest - 1), 10**digits)


def problem(source: ArithmeticSource, seed: int, a: int, b: int) -> Trace:
    """The problem with these operands, as `generate` writes it."""
    if source.operation == "add":
        sign, answer, width = "+", a + b, max(source.digits) + 1
    else:
        sign, answer, width = "*", a * b, sum(source.digits)
    identity = f"{a}{sign}{b}"
    prompt, final = f"{identity}=", f"{answer:0{width}d}"
    if source.wording == "words":
        prompt, final = _sentence(source, generator(f"{seed}:words:{identity}"), a, b), str(answer)
    meta: JsonObject = {
        "group": f"{min(a, b)}{sign}{max(a, b)}",
        "task": f"{source.operation}_{source.digits[0]}x{source.digits[1]}",
        "operation": source.operation,
        "operands": [a, b],
        "carries": sum(step.result >= 10 for step in _digit_steps(source.operation, a, b, _true)),
    }
    steps = _steps(source, a, b, generator(f"{seed}:steps:{identity}"))
    if source.wording in FORMATS:
        prompt, _, final = FORMATS[source.wording](a, b, _digit_steps("add", a, b, _true))
    return Trace(identity, prompt, steps, final, meta)


def _steps(source: ArithmeticSource, a: int, b: int, chance: random.Random) -> tuple[Step, ...]:
    """The steps in the order that `source.steps` declares, numbered in that order."""
    if source.steps == "none":
        return ()
    carry = (lambda _true, largest: chance.randint(0, largest)) if source.steps == "wrong" else _true
    lines = _lines(source, a, b, carry)
    if source.steps == "reversed":
        lines.reverse()
    elif source.steps == "shuffled":
        chance.shuffle(lines)
    return tuple(Step(place, kind, text) for place, (kind, text) in enumerate(lines))


def _true(carry: int, _largest: int) -> int:
    return carry


def _sentence(source: ArithmeticSource, chance: random.Random, a: int, b: int) -> str:
    """A sentence so short that every 13 words in a row hold both numbers: two problems never share such a run."""
    name, thing = chance.choice(NAMES), chance.choice(THINGS)
    if source.operation == "add":
        return f"{name} has {_count(a, thing)} and gets {b} more. How many {thing}s does {name} have now?"
    boxes, inside = _count(a, chance.choice(CONTAINERS)), _count(b, thing)
    return f"{name} has {boxes} with {inside} in each. How many {thing}s is that?"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _lines(source: ArithmeticSource, a: int, b: int, carry: Carry) -> list[tuple[str, str]]:
    """(type, text) of each step in its true order."""
    if source.wording == "words" and source.operation == "multiply":
        return _by_parts(max(a, b), min(a, b), carry)
    steps = _digit_steps(source.operation, a, b, carry)
    if source.wording in FORMATS:
        return FORMATS[source.wording](a, b, steps)[1]
    if source.wording == "symbols":
        return [(step.type, str(step)) for step in steps]
    return [
        (step.type, f"{name}: {step.x} + {step.y} + {step.carry} = {step.result}")
        for name, step in zip(COLUMNS, steps, strict=False)
    ]


def _by_parts(many: int, one: int, carry: Carry) -> list[tuple[str, str]]:
    """`10 * 5 = 50`, `6 * 5 = 30`, `50 + 30 = 80`. `carry` applies to the products here: wrong ones are drawn."""
    places = reversed(list(enumerate(_digits(many))))
    products = [(digit * 10**place, carry(digit * one, 81) * 10**place) for place, digit in places]
    lines = [("product", f"{part} * {one} = {product}") for part, product in products]
    total = products[0][1]
    for _, product in products[1:]:
        lines.append(("sum", f"{total} + {product} = {total + product}"))
        total += product
    return lines


def _digits(number: int, width: int = 1) -> list[int]:
    """Decimal digits, ones first, filled up with zeros to `width`."""
    return [int(digit) for digit in reversed(f"{number:0{width}d}")]


def _digit_steps(operation: str, a: int, b: int, carry: Carry) -> list[DigitStep]:
    """Column by column, ones first; a product as `a` times each digit of `b`, then the sums of the shifted partials."""
    if operation == "add":
        width = len(str(max(a, b)))
        return _columns("+", _digits(a, width), _digits(b, width), carry)
    products = [_columns("*", _digits(a), [digit] * len(_digits(a)), carry) for digit in _digits(b)]
    total, *partials = ([step.result % 10 for step in steps] + [steps[-1].result // 10] for steps in products)
    written = [step for steps in products for step in steps]
    for shift, partial in enumerate(partials, start=1):
        upper = _columns("+", [*total[shift:], 0], partial, carry)
        total = total[:shift] + [step.result % 10 for step in upper]
        written += upper
    return written


def _columns(sign: Literal["*", "+"], xs: Sequence[int], ys: Sequence[int], carry: Carry) -> list[DigitStep]:
    """`8+5+0=13`, or `8*7=56` and then `1*7+5=12`, and so on with the carry."""
    carried, largest = (0, 1) if sign == "+" else (None, 8)
    steps: list[DigitStep] = []
    for x, y in zip(xs, ys, strict=True):
        steps.append(DigitStep(sign, x, y, carry(steps[-1].result // 10, largest) if steps else carried))
    return steps
