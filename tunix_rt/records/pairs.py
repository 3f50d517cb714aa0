"""Preference pairs of a run's own answers: of each prompt the best against the worst, by the product's own verdicts.

Out comes a file of the shape `preference` (prompt, chosen, rejected, answer), and beside it a card that says where it
is from, and the run's own test set. Legend: an answer is what the model wrote to a prompt, with its verdict.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunix_rt import hints
from tunix_rt.batches.reader import Reader
from tunix_rt.checked import sha256_of
from tunix_rt.config.choices import RankedBy, SplitName
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import DataError, InputError
from tunix_rt.files import JsonObject, to_json, write_jsonl, write_text
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.prediction import read_items, read_predictions, verdict
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.rollout import read_rollouts, rollout_steps, rollouts_file
from tunix_rt.traces.trace import Trace

UNFINISHED = "answers that were cut off or failed"
UNJUDGED = "prompts without a reference"
TIED = "prompts whose answers all have one verdict"
FEW = "prompts with fewer than two whole answers"


@dataclass(frozen=True, slots=True)
class Rule:
    """How pairs are made."""

    by: RankedBy = "confidence"
    most: int = 1
    """Pairs of a prompt."""
    rollouts: bool = False
    """Whether the answers are those that the run learned from; otherwise its predictions."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a prompt."""

    prompt: tuple[str, int]
    """The trace's id; of a rollout also its step, since answers of one model are compared: otherwise 0."""
    sample: int
    completion: str
    verdict: float | None
    """1 for right, 0 for wrong, or a rollout's reward; None: there is nothing to judge by."""
    finished: bool
    confidence: float
    length: int
    """Tokens."""

    def rank(self, by: RankedBy) -> tuple[float, float, int]:
        """Sorts the better answer first. There must be a verdict."""
        assert self.verdict is not None
        then = {"confidence": -self.confidence, "length": float(self.length), "sample": 0.0}[by]
        return -self.verdict, then, self.sample


@dataclass(slots=True)
class Built:
    """The pairs, and what became of the other prompts and answers."""

    lines: list[JsonObject] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def sampled(run: RunFolder) -> Iterator[Answer]:
    """The answers in `predictions.jsonl` with their verdicts in `items.jsonl`. Raises DataError."""
    verdicts = {(item["id"], item["sample"]): verdict(item) for item in read_items(run.items)}
    for made in read_predictions(run.predictions):
        if made.key not in verdicts:
            raise DataError(f"{run.items}: no verdict on sample {made.sample} of {made.id}: evaluate the run again")
        right, count = verdicts[made.key], max(len(made.logprobs), 1)
        yield Answer(
            prompt=(made.id, 0),
            sample=made.sample,
            completion=made.completion,
            verdict=None if right is None else float(right),
            finished=made.finish_reason == "stop",
            confidence=sum(made.logprobs) / count,
            length=made.num_new_tokens,
        )


def rolled_out(run: RunFolder, steps: Sequence[int]) -> Iterator[Answer]:
    """The answers that a run learned from at these steps. Raises DataError."""
    for step in steps:
        for made in read_rollouts(rollouts_file(run.rollouts, step)):
            yield Answer(
                prompt=(made.id, step),
                sample=made.sample,
                completion=made.completion,
                verdict=made.reward,
                finished=made.finish_reason == "stop",
                confidence=sum(made.logprobs) / max(len(made.logprobs), 1),
                length=len(made.ids),
            )


def build(answers: Iterable[Answer], traces: Mapping[str, Trace], reader: Reader, rule: Rule) -> Built:
    """The pairs of each prompt: its best answer with its worst, the second best with the second worst, and so on."""
    prompts, built = defaultdict[tuple[str, int], list[Answer]](list), Built()
    for answer in answers:
        prompts[answer.prompt].append(answer)
    for (name, _), group in prompts.items():
        if name not in traces:
            raise DataError(f"trace {name}: not among the data of the run")
        found = [answer for answer in group if answer.finished and answer.completion]
        built.skipped[UNFINISHED] += len(group) - len(found)
        judged = sorted((a for a in found if a.verdict is not None), key=lambda answer: answer.rank(rule.by))
        both = zip(judged, reversed(judged), strict=True)
        pairs = [(best, worst) for best, worst in both if best.rank(rule.by)[0] < worst.rank(rule.by)[0]]
        pairs = pairs[: rule.most]
        if not pairs:
            built.skipped[UNJUDGED if found and not judged else FEW if len(judged) < 2 else TIED] += 1
        built.lines += [_line(traces[name], best, worst, reader) for best, worst in pairs]
    return built


def _line(trace: Trace, best: Answer, worst: Answer, reader: Reader) -> JsonObject:
    """A record of the shape `preference`; the prompt as text, or as messages if there are several."""
    messages = [message.to_json() for message in trace.conversation]
    own = {"samples": [best.sample, worst.sample], "verdicts": [best.verdict, worst.verdict]}
    step = {"step": best.prompt[1]} if best.prompt[1] else {}
    said = [reader.formatter.plain(answer.completion) for answer in (best, worst)]
    return {
        "id": trace.id,
        "prompt": messages if trace.messages else trace.prompt,
        **({"tools": list(trace.tools)} if trace.tools else {}),
        "chosen": said[0],
        "rejected": said[1],
        **({"answer": trace.final_answer} if trace.final_answer else {}),
        "meta": trace.meta | own | step,
    }


def pairs_of(run: RunFolder, config: ExperimentConfig, prepared: PreparedData, rule: Rule) -> Built:
    """The pairs of a run's answers.

    Raises InputError if there are no answers, or none of them make a pair; DataError if a record is damaged.
    """
    traces = {trace.id: trace for trace in prepared.each_trace(split_of(config, rule))}
    steps = rollout_steps(run.rollouts) if rule.rollouts else []
    if rule.rollouts and not steps:
        raise InputError(f"{run.name}: has no rollouts: its objective is {config.objective.kind}; leave --rollouts out")
    if not rule.rollouts and config.generation.num_return_sequences < 2:
        asked = hints.tunix_rt("predict", run.name, "generation=sample", "generation.split=train")
        raise InputError(
            f"{run.name}: has one answer to each prompt; {asked} generation.num_return_sequences=8 asks for more, and "
            "makes a run of which there are pairs"
        )
    answers = rolled_out(run, steps) if rule.rollouts else sampled(run)
    built = build(answers, traces, Reader.of(prepared.model_folder, config.format), rule)
    if not built.lines:
        why = ", ".join(f"{count} {what}" for what, count in built.skipped.items() if count)
        raise InputError(f"{run.name}: no prompt has a better and a worse answer ({why})")
    return built


def split_of(config: ExperimentConfig, rule: Rule) -> SplitName:
    """Whose prompts were answered."""
    return "train" if rule.rollouts else config.generation.split


def write_pairs(
    run: RunFolder, config: ExperimentConfig, prepared: PreparedData, built: Built, rule: Rule, file: Path
) -> Path | None:
    """Write the pairs to `file`, and beside it the card, which ends in `.md`, and the run's test set.

    Returns the file of the test set, which ends in `.test.jsonl`; None if there is none, or these are answers to it.
    """
    write_jsonl(file, built.lines)
    write_text(file.with_suffix(".md"), "\n".join(_card(run, config, built, rule, file)) + "\n")
    test = () if split_of(config, rule) == "test" else prepared.traces("test")
    if not test:
        return None
    write_jsonl(file.with_suffix(".test.jsonl"), (trace.to_json() for trace in test))
    return file.with_suffix(".test.jsonl")


def _card(run: RunFolder, config: ExperimentConfig, built: Built, rule: Rule, file: Path) -> Iterator[str]:
    """A dataset card with its facts in front, as those of the Hugging Face hub have them."""
    stages = run.stages()
    made = "train" if rule.rollouts else "predict"
    facts: JsonObject = {
        "pretty_name": f"Preference pairs of {run.name}",
        "run": run.name,
        "identities": {stage: stages[stage]["identity"] for stage in stages if "identity" in stages[stage]},
        "answers": made,
        "split": split_of(config, rule),
        "samples_per_prompt": None if rule.rollouts else config.generation.num_return_sequences,
        "ranked_by": ["verdict", rule.by],
        "pairs_per_prompt": rule.most,
        "pairs": len(built.lines),
        "skipped": dict(+built.skipped),
        "sources": sources_of(run, rule.rollouts),
        "sha256": sha256_of(file),
    }
    yield "---"
    yield from (f"{name}: {to_json(value)}" for name, value in facts.items())
    yield "---"
    yield f"# Preference pairs of {run.name}"
    yield ""
    yield f"{len(built.lines):,} pairs: of each prompt the run's best answer against its worst. An answer is better by"
    yield (
        f"its verdict, and among answers of one verdict by its {rule.by}. Left out: "
        + (", ".join(f"{count:,} {what}" for what, count in (+built.skipped).items()) or "nothing")
        + "."
    )


def sources_of(run: RunFolder, rollouts: bool) -> dict[str, str]:
    """The sha256 of each file that pairs come from, by its name in the run folder."""
    if rollouts:
        files = [rollouts_file(run.rollouts, step) for step in rollout_steps(run.rollouts)]
        return {f"rollouts/{file.name}": sha256_of(file) for file in files}
    return {file.name: sha256_of(file) for file in (run.predictions, run.items)}
