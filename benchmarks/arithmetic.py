"""Traces with realistic variation in length: sheets of one to seven addition problems in words.

In: the number of sheets, and a seed. Out: a JSONL file of traces. Nothing is downloaded. With `format=lines
tokenizer=bpe` the lengths are distributed like GSM8K's: mean 213 tokens here, 202 there; standard deviation / mean
0.40 and 0.39.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tunix_rt.config.dataset import ArithmeticSource
from tunix_rt.files import write_jsonl
from tunix_rt.traces.arithmetic import generate
from tunix_rt.traces.trace import Step, Trace

SHARES = {1: 5, 2: 35, 3: 35, 4: 17, 5: 5, 6: 2, 7: 1}
"""Maps the number of problems on a sheet to the percentage of such sheets."""
DIGITS = (2, 3, 4)
"""Number of digits of a problem's two numbers, drawn uniformly."""


def write(path: Path, num_sheets: int, seed: int) -> None:
    """Write `num_sheets` sheets as traces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, (sheet.to_json() for sheet in _sheets(num_sheets, seed)))


def _sheets(num_sheets: int, seed: int) -> Iterator[Trace]:
    chance = random.Random(f"{seed}:worksheets")
    problems = {digits: _problems(digits, num_sheets * max(SHARES), seed) for digits in DIGITS}
    for number in range(num_sheets):
        (size,) = chance.choices(list(SHARES), weights=list(SHARES.values()))
        yield _joined(f"sheet{number}", [next(problems[chance.choice(DIGITS)]) for _ in range(size)])


def _problems(digits: int, count: int, seed: int) -> Iterator[Trace]:
    """Distinct problems, starting over once all have been yielded."""
    exist = (9 * 10 ** (digits - 1)) ** 2
    source = ArithmeticSource(
        kind="arithmetic",
        version=1,
        operation="add",
        digits=(digits, digits),
        wording="words",
        steps="full",
        num_traces=min(count, exist),
    )
    while True:
        yield from generate(source, seed)


def _joined(identity: str, problems: list[Trace]) -> Trace:
    """One trace that asks and answers all of the problems."""
    contents = [step.content for problem in problems for step in problem.steps]
    return Trace(
        id=identity,
        prompt=" ".join(problem.prompt for problem in problems),
        steps=tuple(Step(place, "sum", content) for place, content in enumerate(contents)),
        final_answer=", ".join(problem.final_answer for problem in problems),
        meta={"problems": len(problems)},
    )
