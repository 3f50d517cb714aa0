"""Run by an interpreter that has vLLM and nothing of ours: reads what to answer, then does a lap for every line."""

from __future__ import annotations

import json
import os
import resource
import sys
import time

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}


def main() -> None:
    """Answers go to the standard output; whatever vLLM prints there goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())

    from vllm import LLM, SamplingParams

    engine = LLM(
        model=asked["model"],
        dtype="float32",
        enforce_eager=True,
        max_num_seqs=asked["batch_size"],
        max_model_len=asked["longest"],
        enable_prefix_caching=False,
    )
    sampling = SamplingParams(temperature=0, max_tokens=asked["max_new_tokens"])
    prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
    _say(answers, {})
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        made = engine.generate(prompts, sampling, use_tqdm=False)
        lap = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        stopped = sum(one.outputs[0].finish_reason == "stop" for one in made)
        amount = sum(len(one.outputs[0].token_ids) for one in made) - stopped
        _say(answers, lap | {"amount": amount, "peak_bytes": peak, "facts": {"stopped": stopped}})


def _say(stream, record) -> None:
    stream.write(json.dumps(record) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
