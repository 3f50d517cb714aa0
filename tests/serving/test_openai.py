"""The package `openai` asks a trained run: what it reads is what `predict` and `ask` say, streamed or not."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import numpy as np
import openai
import pytest

from tests.serving.conftest import Program, started
from tunix_rt.__main__ import main

MODEL = "quickstart"


def talk(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def joined(stream: Any) -> tuple[str, list[Any], str | None]:
    """Text, logprobs and reason of a stream of one choice."""
    text, logprobs, reason = "", [], None
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            logprobs += (choice.logprobs.content or []) if choice.logprobs else []
            reason = choice.finish_reason or reason
    return text, logprobs, reason


def test_models(client: openai.OpenAI, program: Program) -> None:
    (model,) = client.models.list().data
    assert model.id == f"quickstart/{program.run.name}" == client.models.retrieve(model.id).id
    with pytest.raises(openai.NotFoundError, match="no model 'gpt' here; served: quickstart/"):
        client.chat.completions.create(model="gpt", messages=talk("1*1="))  # type: ignore[arg-type]


def test_many_at_once_get_what_predict_wrote(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Greedily, alone or among others, and what `ask` shows."""
    recorded = program.predictions()

    async def ask_all() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{program.url}/v1", api_key="none") as client:
            asked = [
                client.chat.completions.create(model=MODEL, messages=talk(one["prompt"]), max_tokens=tokens)  # type: ignore[call-overload]
                for one in recorded
                for tokens in (None, 3)
            ]
            return await asyncio.gather(*asked)

    found = asyncio.run(ask_all())
    assert [one.choices[0].message.content for one in found[::2]] == [one["completion"] for one in recorded]
    said = [one.choices[0].message.content for one in found]
    assert all(long.startswith(short) for long, short in zip(said[::2], said[1::2], strict=True))
    usage = found[0].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        recorded[0]["num_prompt_tokens"],
        recorded[0]["num_new_tokens"],
    )
    monkeypatch.chdir(program.folder)
    assert main(["ask", "last", recorded[0]["prompt"]]) == 0
    assert capsys.readouterr().out.startswith(recorded[0]["completion"] + "\n")


def test_samples_have_seeds(client: openai.OpenAI) -> None:
    """n answers that differ, the same with the same seed, and with the one that the server drew."""

    def sample(**how: Any) -> Any:
        return client.chat.completions.create(model=MODEL, messages=talk("12*34="), temperature=1.5, n=3, **how)  # type: ignore[call-overload]

    def texts(found: Any) -> list[str]:
        return [choice.message.content for choice in found.choices]

    first = sample(seed=5)
    assert texts(first) == texts(sample(seed=5)) != texts(sample(seed=6))
    assert len(set(texts(first))) == 3 and [choice.index for choice in first.choices] == [0, 1, 2]
    drawn = sample()
    assert texts(drawn) == texts(sample(seed=drawn.model_extra["tunix_rt"]["seed"]))
    assert first.system_fingerprint == drawn.system_fingerprint


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": MODEL, "messages": talk("12*34="), "logprobs": True, "top_logprobs": 3, "seed": 1}
    how |= {"temperature": 1.0, "max_completion_tokens": 7}
    whole = client.chat.completions.create(**how).choices[0]
    text, logprobs, reason = joined(client.chat.completions.create(**how, stream=True))
    assert (text, reason) == (whole.message.content, whole.finish_reason)
    tokens = whole.logprobs.content
    assert [one.token for one in logprobs] == [one.token for one in tokens]
    # A prompt that was read before is not read again, which rounds otherwise.
    assert [one.logprob for one in logprobs] == pytest.approx([one.logprob for one in tokens], abs=1e-4)
    assert bytes(value for one in tokens for value in one.bytes).decode() == text
    assert len(tokens) == 7 or reason == "stop"
    for one in tokens:
        values = [other.logprob for other in one.top_logprobs]
        assert len(values) == 3 and values == sorted(values, reverse=True) and max(values) <= 0
        assert [other.logprob for other in one.top_logprobs if other.token == one.token] in (
            [],
            [pytest.approx(one.logprob, abs=1e-4)],
        )
    chunks = list(client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == len(tokens)


def test_stop_strings(client: openai.OpenAI) -> None:
    """One of several tokens, in a stream too; what is cut off is not counted."""
    how: dict[str, Any] = {"model": MODEL, "prompt": "12*34=", "temperature": 1.0, "seed": 3, "logprobs": 0}
    text = client.completions.create(**how).choices[0].text
    stop = text[2:5]
    place = text.index(stop)
    cut = client.completions.create(**how, stop=["never", stop])
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == (text[:place], "stop")
    assert cut.usage.completion_tokens == len(cut.choices[0].logprobs.tokens) == place, "a token is a character here"
    chunks = [chunk.choices[0] for chunk in client.completions.create(**how, stop=stop, stream=True)]
    assert "".join(chunk.text for chunk in chunks) == text[:place] and chunks[-1].finish_reason == "stop"


def test_how_likely_a_prompt_is(client: openai.OpenAI, program: Program) -> None:
    """`echo`: log-probabilities of the prompt's own tokens and the likeliest in their places, against transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = ["12*34=", "98*7=1"]
    how: dict[str, Any] = {"model": MODEL, "prompt": prompts, "echo": True, "logprobs": 2}
    found = client.completions.create(**how, max_tokens=0)
    model = AutoModelForCausalLM.from_pretrained(program.run / "model")
    ids = [AutoTokenizer.from_pretrained(program.run / "model").encode(prompt) for prompt in prompts]
    for prompt, tokens, choice in zip(prompts, ids, found.choices, strict=True):
        with torch.inference_mode():
            expected = model(torch.tensor([tokens])).logits[0].log_softmax(-1).numpy()
        said = choice.logprobs
        own = expected[np.arange(len(tokens) - 1), tokens[1:]]
        assert choice.text == prompt == "".join(said.tokens) and said.text_offset == list(range(6))
        assert said.token_logprobs[0] is None and said.token_logprobs[1:] == pytest.approx(own.tolist(), abs=2e-4)
        for place, top in enumerate(said.top_logprobs[1:]):
            assert max(top.values()) == pytest.approx(float(expected[place].max()), abs=2e-4)
            assert top[said.tokens[place + 1]] == said.token_logprobs[place + 1]
    again = client.completions.create(**how | {"prompt": ids}, max_tokens=1)
    for choice, before in zip(again.choices, found.choices, strict=True):
        assert choice.logprobs.token_logprobs[:6] == pytest.approx(before.logprobs.token_logprobs, nan_ok=True)
        assert len(choice.logprobs.tokens) == 7, "the end of an answer counts too"


def test_errors_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="unsupported parameter: 'logit_bias'") as refused:
        client.completions.create(model=MODEL, prompt="1", logit_bias={"1": 5})
    assert (refused.value.param, refused.value.code) == ("logit_bias", "unsupported_parameter")
    with pytest.raises(openai.BadRequestError, match="max_tokens is 1000, at most 122 are possible"):
        client.completions.create(model=MODEL, prompt="12*34=", max_tokens=1000)


def test_the_answer_in_the_terms_of_the_format(client: openai.OpenAI, program: Program) -> None:
    recorded = program.predictions()[0]
    found = client.chat.completions.create(model=MODEL, messages=talk(recorded["prompt"]))  # type: ignore[arg-type]
    told = found.choices[0].model_extra["tunix_rt"]
    assert told["steps"] == recorded["steps"] and set(told) == {"steps", "answer", "problem"}


@pytest.mark.acceptance
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(program: Program, number: signal.Signals) -> None:
    """With exit code 0; an answer that has begun is given whole."""
    other = started(program.folder, "last", TUNIX_RT_SERVE_TOKEN="open-sesame")
    with other.process, openai.OpenAI(base_url=f"{other.url}/v1", api_key="open-sesame") as client:
        stream = client.chat.completions.create(model=MODEL, messages=talk("12*34="), stream=True, logprobs=True)
        begun = next(iter(stream))
        other.process.send_signal(number)
        text, _, reason = joined(stream)
        assert begun.choices and text and reason in ("length", "stop")
        assert other.process.wait(60) == 0
        assert other.process.stderr is not None and other.process.stderr.read().endswith("ended\n")


def test_the_program_says_what_is_wrong(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(program.folder)
    for words, said in (
        (["last", "--host", "0.0.0.0"], "set a token"),
        (["last", "last"], "is named twice"),
        (["last", "--rows", "0"], "--rows 0: at least 1"),
        (["last", "--port", "99999"], "--port 99999: from 0 to 65535"),
    ):
        assert main(["serve", *words]) == 2 and said in capsys.readouterr().err, words
