"""The rooms put together: train a recipe, evaluate a model, answer for some images. The command line and scripts call these."""

from s3ta.workflow.evaluation import default_ledger, evaluate_model, is_evaluated
from s3ta.workflow.export import export
from s3ta.workflow.model import OpenedModel, RuntimeOptions, open_subject, recipe_data
from s3ta.workflow.prediction import Answer, predict
from s3ta.workflow.preprocessing import preparation_line
from s3ta.workflow.request import EvaluationRequest, Examples, Output, SuiteChoice, choose_suite, transferred
from s3ta.workflow.training import train_run

__all__ = [
    "Answer",
    "EvaluationRequest",
    "Examples",
    "OpenedModel",
    "Output",
    "RuntimeOptions",
    "SuiteChoice",
    "choose_suite",
    "default_ledger",
    "evaluate_model",
    "export",
    "is_evaluated",
    "open_subject",
    "predict",
    "preparation_line",
    "recipe_data",
    "train_run",
    "transferred",
]
