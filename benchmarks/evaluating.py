"""The evaluation that benchmarks run: on the CPU, without checks, its records in a folder that they give."""

from __future__ import annotations

from pathlib import Path

from s3ta.evaluate import Settings, Suite
from s3ta.workflow import (
    EvaluationOutput,
    EvaluationRequest,
    ExampleSelection,
    OpenedModel,
    RuntimeOptions,
    evaluate_model,
)


def request_of(
    suite: Suite, num_examples: int, settings: Settings, data_root: Path, out: Path | None = None
) -> EvaluationRequest:
    runtime, examples = RuntimeOptions(data_root, "cpu"), ExampleSelection(num_examples=num_examples)
    return EvaluationRequest(suite, examples, settings, runtime, EvaluationOutput(out, "none"))


def records_of(opened: OpenedModel, request: EvaluationRequest) -> Path:
    """The folder of the records."""
    folder = evaluate_model(opened, request)
    assert folder is not None
    return folder
