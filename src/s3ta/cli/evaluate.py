"""`s3ta evaluate`: any classifier, its examples, its attacks."""

from __future__ import annotations

from s3ta.cli.dataclass_options import grouped
from s3ta.cli.evaluation_options import DataOptions, OutputOptions, RunOptions, SuiteOptions
from s3ta.cli.model_options import ModelOptions, ModelSource
from s3ta.cli.shared import app, before_the_first_pass, err_console, out_console, plain_errors, print_evaluation
from s3ta.progress import waiting


@app.command(
    epilog="Examples:\n\ns3ta evaluate runs/digits-s3ta_4\n\n"
    "s3ta evaluate runs/digits-s3ta_4 attack.num_restarts=10 --num-examples 100\n\n"
    "s3ta evaluate timm:resnet50 --suite table1 --data folder:~/imagenet --limit 1000\n\n"
    "s3ta evaluate my.models:make --weights best.pt --image-size 32 --data torchvision:CIFAR10 --suite autoattack\n\n"
    "s3ta evaluate runs/x --attack adam-250 --attack square --radius 8/255"
)
@plain_errors
@grouped
def evaluate(
    model: ModelSource,
    with_what: SuiteOptions,
    opened: ModelOptions,
    on_what: DataOptions,
    how: RunOptions,
    kept: OutputOptions,
) -> None:
    """Attack any classifier and record what happened to every example. Stop it at any moment; the same command goes on.

    Start it as torchrun -m s3ta evaluate ... to divide the examples among processes."""
    from s3ta.models import refuse_unknown_source

    refuse_unknown_source(model)
    with_what.refuse_for_any_model()
    before_the_first_pass(return_memory=how.return_memory)
    from s3ta import workflow
    from s3ta.report import findings_of

    settings = how.settings(with_what)
    runtime = workflow.RuntimeOptions(on_what.data_root, how.device, on_what.download)
    images, suite = None, None
    if with_what.transfer is not None:
        with_what.refuse_beside_transfer(on_what)
        images, suite, settings = workflow.transfer_request(with_what.transfer, settings)
    examples = on_what.examples(images)
    opening = opened.opening()._replace(micro_batch=settings.batch_size)
    with waiting(f"opening {model}"):
        subject = workflow.open_for_evaluation(model, opening, on_what.config(), on_what.split, runtime)
    if suite is None:
        suite = workflow.choose_suite(subject, with_what.choice())
    how.say_what_changed()
    request = workflow.EvaluationRequest(suite, examples, settings, runtime, kept.output(), images)
    folder = workflow.evaluate_model(subject, request, print_evaluation)
    if folder is None or not any(folder.glob("chunk-*.parquet")):
        return  # another process of torchrun speaks; an empty part, before the others
    for finding in findings_of(folder):
        err_console.print(finding.line)
    out_console.print(f"Records: {folder}")
