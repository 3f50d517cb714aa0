"""Predictions as MLflow traces: one trace per prediction, one child span per reasoning step, with the verdict.

Written the way MLflow's exporter writes them, not through its tracer: the ids are ours, so a trace that is sent again
is the same trace; there are ten times fewer writes; an error is raised instead of logged. (`TracingClient` has no
underscore, but MLflow does not document it: `mlflow<4` is pinned, and a test reads the traces back.) A prediction has
no clock values: all of its spans have the same time, a microsecond apart to keep their order.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING

from tunix_rt.files import JsonObject, digest

if TYPE_CHECKING:
    from mlflow.entities import Assessment, Span, TraceInfo
    from mlflow.tracking import MlflowClient

SPANS_PER_CALL = 500
TRACES_PER_PAGE = 100
PREVIEW = 1000
NAME = 60


def send_traces(
    client: MlflowClient, uri: str, experiment: str, run_id: str, rows: list[JsonObject], time: int
) -> None:
    """Replace the run's traces by those of `rows` (`content.answers`) at `time` (Unix milliseconds).

    A trace is added to the run only after its spans are stored. Its id changes only if the prediction does.
    """
    from boltons.iterutils import chunked
    from mlflow.tracing.client import TracingClient

    wanted = {f"tr-{digest([run_id, row])[:32]}": row for row in rows}
    present = set(_present(client, experiment, run_id))
    for stale in chunked(sorted(present - wanted.keys()), TRACES_PER_PAGE):
        client.delete_traces(experiment, trace_ids=stale)
    missing = {key: row for key, row in wanted.items() if key not in present}
    tracing = TracingClient(uri)
    for spans in chunked([span for key, row in missing.items() for span in _spans(key, row, time)], SPANS_PER_CALL):
        tracing.log_spans(experiment, spans)
    for key, row in missing.items():
        tracing.start_trace(_info(key, row, experiment, run_id, time))


def _present(client: MlflowClient, experiment: str, run_id: str) -> Iterator[str]:
    """Ids of the run's traces in the store."""
    search = {"locations": [experiment], "run_id": run_id, "include_spans": False, "max_results": TRACES_PER_PAGE}
    page = client.search_traces(**search)
    yield from (trace.info.trace_id for trace in page)
    while page.token:
        page = client.search_traces(**search, page_token=page.token)
        yield from (trace.info.trace_id for trace in page)


def _spans(key: str, row: JsonObject, time: int) -> Iterator[Span]:
    """The root (prompt → answer, its verdict as attributes) and a child for each step.

    The completion is an attribute: MLflow shows outputs as Markdown, where `3*4=12;5*6=30` loses its `*`.
    """
    text = ("steps", "step_checks", "logprobs", "token_ends", "prompt", "answer")
    attributes = {name: value for name, value in row.items() if name not in text and value is not None}
    parts = {"inputs": {"prompt": row["prompt"]}, "outputs": {"answer": row["answer"]}}
    yield _span(key, 0, "prediction", time, parts, attributes, row["finish_reason"] == "error")
    verdicts = (row.get("step_checks") or {}).get("verdicts", [])
    for number, (step, right) in enumerate(zip_longest(row["steps"], verdicts[: len(row["steps"])]), start=1):
        attributes = {} if right is None else {"correct": right}
        name = f"step {number}: {step[:NAME]}" + (" ✗" if right is False else "")
        yield _span(key, number, name, time, {"outputs": step}, attributes, right is False)


def _span(key: str, number: int, name: str, time: int, parts: JsonObject, attributes: JsonObject, wrong: bool) -> Span:
    """Span `number` of a trace (0: its root), at `time` (Unix milliseconds); `parts`: its inputs and outputs."""
    from mlflow.entities import Span, SpanType
    from mlflow.tracing.constant import SpanAttributeKey

    own = {
        SpanAttributeKey.REQUEST_ID: key,
        SpanAttributeKey.SPAN_TYPE: SpanType.CHAIN if number else SpanType.LLM,
        SpanAttributeKey.INPUTS: parts.get("inputs"),
        SpanAttributeKey.OUTPUTS: parts["outputs"],
    }
    start = time * 1_000_000 + 1_000 * number
    return Span.from_dict(
        {
            "trace_id": _base64(key.removeprefix("tr-")),
            "span_id": _base64(digest([key, number])[:16]),
            "parent_span_id": _base64(digest([key, 0])[:16]) if number else None,
            "name": name,
            "start_time_unix_nano": start,
            "end_time_unix_nano": start + 1_000,
            "status": {"code": "STATUS_CODE_ERROR" if wrong else "STATUS_CODE_OK", "message": ""},
            "attributes": {name: json.dumps(value) for name, value in (attributes | own).items() if value is not None},
            "events": [],
        }
    )


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode("ascii")


def _info(key: str, row: JsonObject, experiment: str, run_id: str, time: int) -> TraceInfo:
    from mlflow.entities import AssessmentSource, Expectation, Feedback, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    source = AssessmentSource("CODE", "tunix_rt")
    assessments: list[Assessment] = [Expectation("reference", row["reference"], source=source, trace_id=key)]
    if "correct" in row:
        verdict = Feedback("correct", row["correct"], source=source, trace_id=key, rationale=row.get("reason"))
        assessments.append(verdict)
    return TraceInfo(
        trace_id=key,
        trace_location=TraceLocation.from_experiment_id(experiment),
        request_time=time,
        state=TraceState.ERROR if row["finish_reason"] == "error" else TraceState.OK,
        request_preview=row["prompt"][:PREVIEW],
        response_preview=(row["answer"] or row["completion"] or row["error"] or "")[:PREVIEW],
        client_request_id=f"{row['id']}/{row['sample']}",
        execution_duration=0,
        trace_metadata={TraceMetadataKey.SOURCE_RUN: run_id},
        tags={TraceTagKey.TRACE_NAME: "prediction"},
        assessments=assessments,
    )
