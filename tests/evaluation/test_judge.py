"""A model that judges, behind a server of this test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.scorers import scorer
from tunix_rt.config.rollout import RewardConfig
from tunix_rt.errors import ConfigError, DataError, MachineError
from tunix_rt.evaluation import endpoint
from tunix_rt.evaluation.reward import Rewarder
from tunix_rt.evaluation.score import score
from tunix_rt.evaluation.scorer import Question

Predict, Ask, Rules = Callable[..., Any], Callable[..., Any], Callable[..., Any]


class Model(BaseHTTPRequestHandler):
    """Calls an answer right if it is in the reference; answers `busy` first with an error, `odd` without a verdict."""

    asked: list[tuple[str, Any]] = []  # noqa: RUF012 (of one test at a time)
    together: threading.Barrier | None = None
    """Where requests wait for each other."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][0]["content"]
        self.asked.append((str(self.headers["Authorization"]), request))
        answer, reference = (text.split(f"<{name}>\n")[1].split(f"\n</{name}>")[0] for name in ("answer", "reference"))
        if self.together is not None:
            self.together.wait(10)
        busy = answer == "busy" and sum("busy" in str(body) for _, body in self.asked) == 1
        self.send_response(503 if busy else 401 if answer == "forbidden" else 200)
        self.end_headers()
        verdict = "They are the same, not INCORRECT.\nCORRECT" if answer in reference else "Another.\nINCORRECT"
        content = "I cannot say." if answer == "odd" else verdict
        self.wfile.write(json.dumps({"choices": [{"message": {"content": content}}]}).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(endpoint, "PAUSE", 0.001)
    Model.asked, Model.together = [], None
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_its_last_word_is_the_verdict_and_it_is_asked_once(url: str, tmp_path: Path) -> None:
    judge = scorer("judge", url=url, model="m", replies=str(tmp_path / "kept.jsonl"))
    question = Question("a red car", "Which?")
    assert judge.match("red car", question).equal and judge.match("red car", question).equal
    match = judge.match("{prompt} boat", question)
    assert not match.equal and match.reason == "Another. INCORRECT"
    assert "\n{prompt} boat\n" in Model.asked[1][1]["messages"][0]["content"], "what a model wrote is no template"
    assert judge.match("odd", question).reason == "no verdict: I cannot say."
    assert judge.match("busy", Question("busy")).equal, "asked again after HTTP 503"
    assert judge.match("x" * 30_000, question).reason == "too long to judge"
    assert len(Model.asked) == 5
    assert judge.same("red car.", "Red car") and len(Model.asked) == 5
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert len(kept) == 4 and kept[0]["reply"].endswith("\nCORRECT")


def test_what_was_judged_needs_no_endpoint(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "k")
    first = scorer("judge", url=url, model="m", api_key_variable="KEY")
    assert first.match("red", Question("red")).equal and Model.asked[0][0] == "Bearer k"
    assert (tmp_path / "data/judge_replies.jsonl").exists() and "Bearer" not in str(Model.asked[0][1])
    gone = scorer("judge", url="http://127.0.0.1:9/v1", model="m")
    assert gone.match("red", Question("red")).equal
    with pytest.raises(MachineError, match=r"127.0.0.1:9/v1 gives no reply .*; the same command again goes on"):
        gone.match("blue", Question("red"))
    with pytest.raises(MachineError, match="HTTP 401"):
        first.match("forbidden", Question("red"))


def test_several_are_asked_at_once_and_the_verdicts_are_the_same(url: str, tmp_path: Path) -> None:
    """Prevents: 1,319 answers judged one after the other; replies that are kept for another question."""
    answers = [(f"red {number}", Question(f"a red {number % 4}")) for number in range(6)]
    Model.together = threading.Barrier(3)
    judge = scorer("judge", url=url, model="m", concurrent_requests=3, replies=str(tmp_path / "a.jsonl"))
    judge.ask_ahead([*answers, *answers, ("x" * 30_000, answers[0][1])])
    assert len(Model.asked) == 6, "each once, and none that is too long"
    Model.together = None
    alone = scorer("judge", url=url, model="m", concurrent_requests=1, replies=str(tmp_path / "b.jsonl"))
    backwards = [alone.match(*answer) for answer in reversed(answers)]
    assert [judge.match(*answer) for answer in answers] == backwards[::-1] and len(Model.asked) == 12
    kept = [set((tmp_path / name).read_text().splitlines()) for name in ("a.jsonl", "b.jsonl")]
    assert kept[0] == kept[1] and len(kept[0]) == 6
    with pytest.raises(MachineError, match="HTTP 401"):
        judge.ask_ahead([("forbidden", Question("red"))])


def test_scoring_asks_ahead(url: str, predict: Predict, ask: Ask, rules: Rules) -> None:
    Model.together = threading.Barrier(4)
    judged = replace(rules(), scorers=(scorer("judge", url=url, model="m", concurrent_requests=4),))
    predictions = [predict(name, f"1{name}", reference=f"1{name}") for name in "2345"]
    result = score(predictions, {name: ask(name, f"1{name}") for name in "2345"}, judged)
    assert result.metrics["accuracy"]["k"] == 4 and len(Model.asked) == 4


def test_its_agreement_with_people_is_stated(url: str, tmp_path: Path) -> None:
    rows = [("red", True), ("blue", False), ("green", True), ("re", True)]
    lines = [json.dumps({"reference": "red", "answer": answer, "correct": right}) for answer, right in rows]
    (tmp_path / "labelled.jsonl").write_text("\n".join(lines))
    judge = scorer("judge", url=url, model="m", labelled=str(tmp_path / "labelled.jsonl"))
    agreement = judge.facts()["agreement"]
    assert (agreement["k"], agreement["n"], agreement["value"]) == (3, 4, 0.75)
    (tmp_path / "labelled.jsonl").write_text('{"answer": "x"}')
    with pytest.raises(DataError, match="every line needs reference, answer and correct"):
        judge.facts()


def test_what_cannot_work_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="does not begin with http"):
        scorer("judge", url="localhost", model="m")
    with pytest.raises(ConfigError, match=r"prompt: it must hold \{reference\} and \{answer\}"):
        scorer("judge", url="http://x", model="m", prompt="hello")


def test_as_a_reward_it_is_asked_of_all_answers_at_once(url: str, predict: Predict, ask: Ask, rules: Rules) -> None:
    """Eight requests wait for each other; the judge's limits are its own, not those of one verdict."""
    evaluation = rules(scorers=(scorer("text"), scorer("judge", url=url, model="m", concurrent_requests=8)))
    Model.together = threading.Barrier(8)
    said = [predict("a", f"{number % 8 + 10}", number) for number in range(16)]
    reward = RewardConfig(weights={"answer": 1.0, "judge": 0.5}, seconds=5.0, megabytes=1024)
    with Rewarder(evaluation, reward, 100) as rewarder:
        found = rewarder.rewards(said, {"a": ask("a", "12")})
        assert [one.total for one in found] == [1.5 if number % 8 == 2 else 0.0 for number in range(16)]
        assert len(Model.asked) == 8 and rewarder.failed == 0
        Model.together = None
        with pytest.raises(MachineError, match="HTTP 401"):
            rewarder.rewards([predict("a", "forbidden")], {"a": ask("a", "12")})
