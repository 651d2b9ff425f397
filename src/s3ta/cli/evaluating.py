"""`s3ta evaluate`: any classifier, its examples, its attacks; and `s3ta export`, what others want to have of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from s3ta.cli.mistakes import refuse_mistakes
from s3ta.cli.model_options import (
    ChannelOrder,
    ClassNames,
    IgnoreKeys,
    ImageSize,
    InChannels,
    Mean,
    NumClasses,
    PreprocessingName,
    Std,
    Weights,
    opening_of,
    preprocessing_of,
)
from s3ta.cli.shared import (
    DataRoot,
    Device,
    Download,
    ReturnMemory,
    Tiny,
    app,
    before_the_first_pass,
    err_console,
    one_of,
    out_console,
    plain_errors,
    print_evaluation,
    radius_of,
)
from s3ta.errors import UserError

ATTACKS, DATA, RUN = "What is measured", "Examples", "How it runs"


@app.command(
    epilog="Examples:\n\ns3ta evaluate runs/digits-s3ta_4\n\n"
    "s3ta evaluate runs/digits-s3ta_4 attack.num_restarts=10 --num-examples 100\n\n"
    "s3ta evaluate timm:resnet50 --suite table1 --data folder:~/imagenet --limit 1000\n\n"
    "s3ta evaluate my.models:make --weights best.pt --image-size 32 --data torchvision:CIFAR10 --suite autoattack\n\n"
    "s3ta evaluate runs/x --attack adam-250 --attack square --radius 8/255"
)
@plain_errors
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="Run folder, model folder, Hub id, timm:NAME, torchvision:NAME, or package.module:factory."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[attack.a=b]...", help="Settings to change in every attack of the suite."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Name from `s3ta list suites`.  \\[default: the recipe's, else quick]", rich_help_panel=ATTACKS
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of a suite: an attack from `s3ta list attacks`; may be given several times.",
            rich_help_panel=ATTACKS,
        ),
    ] = None,
    radius: Annotated[
        str | None,
        typer.Option(
            help="Such as 8/255, for suites and attacks that state none.  \\[default: the recipe's, else 8/255]",
            rich_help_panel=ATTACKS,
        ),
    ] = None,
    transfer: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a suite: score the images kept in this folder of another model's evaluation.",
            rich_help_panel=ATTACKS,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses examples, targets and starts.", rich_help_panel=ATTACKS)] = 0,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Forward and backward passes that each example may cost; what does not fit is left out.",
            rich_help_panel=ATTACKS,
        ),
    ] = None,
    exhaustive: Annotated[
        bool,
        typer.Option(
            "--exhaustive",
            help="Go on with examples whose verdict cannot change any more.",
            rich_help_panel=ATTACKS,
        ),
    ] = False,
    weights: Weights = None,
    ignore_keys: IgnoreKeys = None,
    num_classes: NumClasses = None,
    image_size: ImageSize = None,
    in_channels: InChannels = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: ChannelOrder = None,
    class_names: ClassNames = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, torchvision:NAME, folder:PATH or npz:PATH.  \\[default: the recipe's]", rich_help_panel=DATA
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.", rich_help_panel=DATA)] = "test",
    num_validation: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="How many training examples are the validation split.  \\[default: 1000, or the recipe's]",
            rich_help_panel=DATA,
        ),
    ] = None,
    num_examples: Annotated[
        int | None,
        typer.Option(
            "--num-examples",
            "--limit",
            min=1,
            help="How many examples.  \\[default: the suite's]",
            rich_help_panel=DATA,
        ),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(help="File with the ids of the examples to use, one per line.", rich_help_panel=DATA),
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(
            help="CSV file with a target for each example; each evaluation writes its own.", rich_help_panel=DATA
        ),
    ] = None,
    preprocessing: PreprocessingName = None,
    match_classes: Annotated[
        str | None,
        typer.Option(
            help="Match classes by name: `data`, only those of the data compete (ImageNet-A's 200 ways); `model`, all of "
            "the model's do.",
            rich_help_panel=DATA,
        ),
    ] = None,
    on_unreadable: Annotated[
        str, typer.Option(help="stop or skip: what to do about images that cannot be read.", rich_help_panel=DATA)
    ] = "stop",
    data_root: DataRoot = Path("data"),
    download: Download = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the records.  \\[default: evaluations/SUITE in the run folder]", rich_help_panel=RUN
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Examples in flight; changes no record.  \\[default: the micro-batch]",
            rich_help_panel=RUN,
        ),
    ] = None,
    micro_batch: Annotated[
        int,
        typer.Option(
            min=1,
            help="Examples in the model at once; recorded, for it can change last bits.",
            rich_help_panel=RUN,
        ),
    ] = 50,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads; recorded likewise.  \\[default: all cores]", rich_help_panel=RUN),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Do only this part, such as 1/4; merge by copying chunks.", rich_help_panel=RUN),
    ] = None,
    search: Annotated[
        str,
        typer.Option(
            help="Arithmetic of the attack: float32 or bfloat16. The verdict is always float32.",
            rich_help_panel=RUN,
        ),
    ] = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Attack a compiled copy of the model.", rich_help_panel=RUN)
    ] = False,
    channels_last: Annotated[
        bool,
        typer.Option("--channels-last", help="Attack in the memory order that GPUs prefer.", rich_help_panel=RUN),
    ] = False,
    keep_images: Annotated[
        bool,
        typer.Option("--keep-images", help="Keep every adversarial image beside the records.", rich_help_panel=RUN),
    ] = False,
    checks: Annotated[
        bool,
        typer.Option(
            "--checks/--no-checks",
            help="Look the model over before, and check the evaluation afterwards.",
            rich_help_panel=RUN,
        ),
    ] = True,
    full_checks: Annotated[
        bool,
        typer.Option(
            "--full-checks",
            help="Let the checks afterwards cost what they need, 344 passes on each of up to 32 images; by default at most a "
            "fifth of the attacks' passes.",
            rich_help_panel=RUN,
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop where the model looks wrong.", rich_help_panel=RUN)
    ] = False,
    device: Device = "auto",
    return_memory: ReturnMemory = False,
    tiny: Tiny = False,
) -> None:
    """Attack any classifier and record what happened to every example. Stop it at any moment; the same command goes on.

    Start it as torchrun -m s3ta evaluate ... to divide the examples among processes."""
    if full_checks and not checks:
        raise UserError("--full-checks asks for what --no-checks leaves out: choose one of them.")
    from s3ta.data import refuse_unknown_data

    asked_radius, asked_data, part = radius_of(radius), _data(data, preprocessing, num_validation), _part(shard)
    precision = one_of("arithmetic", search, ("float32", "bfloat16"))
    matched = None if match_classes is None else one_of("--match-classes", match_classes, ("data", "model"))
    skips_unreadable = one_of("--on-unreadable", on_unreadable, ("stop", "skip")) == "skip"
    if asked_data is not None:
        refuse_unknown_data(asked_data.source, split)
    refuse_mistakes(model, suite, attack or [], asked_radius, overrides or [])
    before_the_first_pass(return_memory=return_memory)
    from s3ta.evaluate import Settings, Shard
    from s3ta.models import Manner
    from s3ta.progress import waiting
    from s3ta.report import findings_of
    from s3ta.workflow import Examples, Place, choose_suite, evaluate_model, open_subject, transferred

    settings = Settings(
        seed=seed,
        micro_batch=micro_batch,
        num_threads=threads or os.cpu_count() or 1,
        search=Manner(precision, compiled, channels_last),
        exhaustive=exhaustive,
        budget=budget,
        keep_images=keep_images,
        batch_size=batch_size,
    )
    images, chosen = None, None
    if transfer is not None:
        if suite or attack or overrides or tiny or radius or num_examples or seed or ids or targets:
            raise UserError(
                "--transfer scores what is there: it goes with no suite, attack, radius, size, ids, targets, seed or "
                "settings."
            )
        images, chosen, settings = transferred(transfer, settings)
    wanted = Examples(
        data=asked_data,
        split=split,
        num_examples=num_examples,
        ids=ids if images is None else images.ids,
        targets=targets,
        match_classes=matched,
        skip_unreadable=skips_unreadable,
    )
    opening = opening_of(
        weights, ignore_keys, num_classes, image_size, in_channels, mean, std, channel_order, class_names
    )._replace(micro_batch=micro_batch)
    place = Place(data_root, device, download)
    with waiting(f"opening {model}"):
        subject = open_subject(model, opening, wanted.data, split, place)
    if chosen is None:
        chosen = choose_suite(subject, suite, attack or [], asked_radius, tiny, overrides or [])
    folder = evaluate_model(
        subject,
        chosen,
        wanted,
        out,
        settings,
        place,
        images,
        None if part is None else Shard(*part),
        checks="full" if full_checks else "some" if checks else "none",
        strict=strict,
        show=lambda measured: print_evaluation(measured, chosen.name, natural=not chosen.attacks),
    )
    if folder is None or not any(folder.glob("chunk-*.parquet")):
        return  # another process of torchrun speaks; an empty part, before the others
    for finding in findings_of(folder):
        err_console.print(f"{finding.severity}: {finding.kind}: {finding.told}", markup=False)
    out_console.print(f"Records: {folder}", markup=False)


@app.command(
    epilog="Examples:\n\ns3ta export runs/x/evaluations/autoattack --out submission name=Zoran2020Towards_S3TA4 "
    "venue='CVPR 2020'"
)
@plain_errors
def export(
    folder: Annotated[Path, typer.Argument(help="A finished evaluation, made with --keep-images.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="[field=text]...", help="Fields of the card: name, authors, link, venue, architecture."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for adversarial.pt and card.json.")] = Path("export"),
    data_root: DataRoot = Path("data"),
) -> None:
    """Write what a leaderboard wants: the worst image of every example as one .pt tensor, and its JSON card."""
    said: dict[str, str] = {}
    for text in fields or []:
        name, sign, value = text.partition("=")
        if not sign:
            raise UserError(f"{text} is no field of the card such as name=...")
        said[name] = value
    from s3ta import workflow

    for path in workflow.export(folder, out, workflow.Place(data_root), said):
        out_console.print(f"Written: {path}", markup=False)


def _data(source: str | None, preprocessing: str | None, num_validation: int | None) -> Any:
    """The data that a person names; None: the recipe's."""
    from s3ta.data import DataConfig

    if source is None:
        for option, value in (("--preprocessing", preprocessing), ("--num-validation", num_validation)):
            if value is not None:
                raise UserError(f"{option} goes with --data: a recipe says how its own data are treated.")
        return None
    return DataConfig(source=source, preprocessing=preprocessing_of(preprocessing), num_validation=num_validation)


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise UserError(f"--shard {text} is no part such as 1/4: the first of four.")
    return int(index), int(count)
