"""The rooms put together: train a recipe, evaluate a model, answer for some images. The command line and scripts call these."""

from s3ta.workflow.conversion import ConvertedModel, convert
from s3ta.workflow.evaluation import evaluate_model, is_evaluation_complete
from s3ta.workflow.export_adversarial_images import export_images
from s3ta.workflow.model import OpenedModel, RuntimeOptions, open_for_evaluation, recipe_data
from s3ta.workflow.prediction import predict
from s3ta.workflow.preprocessing import recorded_preparation
from s3ta.workflow.request import (
    EvaluationOutput,
    EvaluationRequest,
    ExampleSelection,
    SuiteChoice,
    choose_suite,
    transfer_request,
)
from s3ta.workflow.training import train_run

__all__ = [
    "ConvertedModel",
    "EvaluationOutput",
    "EvaluationRequest",
    "ExampleSelection",
    "OpenedModel",
    "RuntimeOptions",
    "SuiteChoice",
    "choose_suite",
    "convert",
    "evaluate_model",
    "export_images",
    "is_evaluation_complete",
    "open_for_evaluation",
    "predict",
    "recipe_data",
    "recorded_preparation",
    "train_run",
    "transfer_request",
]
