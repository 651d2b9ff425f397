"""`s3ta show`: a recipe as it is, and in a few lines what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from s3ta.cli.shared import BatchSize, RecipeName, app, chosen_recipe, err_console, out_console, plain_errors

if TYPE_CHECKING:
    from s3ta.train import TrainConfig
    from s3ta.train.cost import Hardware, Precision, TrainingCost

UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


@app.command(
    epilog="Examples:\n\ns3ta show digits/s3ta_4\n\ns3ta show digits/s3ta_4 seed=1 > mine.json\n\n"
    "s3ta show digits/s3ta_4 --fields\n\ns3ta show imagenet/s3ta_16-10 --hardware a100 --gpus 8"
)
@plain_errors
def show(
    recipe: RecipeName,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Settings to change.")] = None,
    fields: Annotated[bool, typer.Option("--fields", help="Every setting with its value and what it means.")] = False,
    batch_size: BatchSize = None,
    hardware: Annotated[
        str, typer.Option(help="What hours and memory are told for: h200, h100, a100, l40s, v100.")
    ] = "h200",
    gpus: Annotated[int, typer.Option(help="How many of them, one process each.")] = 1,
    utilization: Annotated[float, typer.Option(help="Share of their peak that is assumed to be used.")] = 0.4,
) -> None:
    """Show a recipe, complete: its note, cost and GPU-hours (on stderr) and its JSON (on stdout)."""
    from s3ta.config import describe, to_json
    from s3ta.recipes import RECIPES
    from s3ta.train.cost import get_hardware, training_cost

    config = chosen_recipe(recipe, overrides or [], is_tiny=False, batch_size=batch_size)
    note = RECIPES[recipe].__doc__ if recipe in RECIPES else None
    gpu = get_hardware(hardware)
    estimate = training_cost(config, gpu, gpus, utilization)
    cost = estimate.cost
    err_console.print("\n".join(line.strip() for line in (note or config.source).splitlines()))
    err_console.print(
        f"\n{config.model.name}: {cost.parameters:,} parameters, {cost.multiply_accumulates:,} multiply-accumulates "
        f"per image, map {cost.map_size[0]}x{cost.map_size[1]}"
    )
    for line in _cost_lines(config, estimate, gpu, gpus, utilization):
        err_console.print(line)
    for departure in config.departures:
        err_console.print(f"  departs: {departure}")
    if fields:
        for name, value, meaning in describe(config):
            out_console.print(f"{name} = {value}" + (f"\n    {meaning}" if meaning else ""))
    else:
        out_console.print(to_json(config))


def _cost_lines(
    config: TrainConfig, estimate: TrainingCost, hardware: Hardware, num_gpus: int, utilization: float
) -> list[str]:
    """The budget as a table of text, with what it assumes."""
    from s3ta.config import override
    from s3ta.train.cost import training_cost

    forward = 2 * estimate.cost.multiply_accumulates
    attack, update = estimate.passes
    share = config.batch_size // num_gpus
    most, slower = estimate.bytes_per_process, ""
    if config.compute.uses_bfloat16:
        plain = override(config, ["compute.attack_precision=float32", "compute.update_precision=float32"])
        first = training_cost(plain, hardware, num_gpus, utilization)
        most = max(most, first.bytes_per_process)
        slower = f"; {_duration(first.gpu_hours)} of it if bfloat16 never begins"
    attacked = f"{config.compute.attack_precision}; {estimate.attack_images:,} of a process's {share:,} at once"
    updated = f"{config.compute.update_precision}; {estimate.update_images:,} at once"
    rows = [
        ("forward pass", _flop(float(forward)), "per image"),
        (
            "training step",
            _flop(estimate.operations_per_image),
            f"per image: {attack:g} forward passes' worth in the attack, {update:g} in the update",
        ),
        (
            "whole recipe",
            _flop(estimate.operations),
            f"{config.schedule.num_train_steps:,} training steps of {config.batch_size:,} images",
        ),
        ("kept, attack", _bytes(estimate.attack_bytes), f"per image for the way back, {attacked}"),
        ("kept, update", _bytes(estimate.update_bytes), f"per image for the way back, {updated}"),
        ("kept, always", _bytes(estimate.state_bytes), "per process: weights, gradients, optimizer and the like"),
        ("memory", _bytes(most), _fit(most, hardware)),
        (
            "time",
            _duration(estimate.gpu_hours / num_gpus),
            f"{_duration(estimate.gpu_hours)} of GPU time on {num_gpus} x {hardware.name}{slower}",
        ),
    ]
    width = max(len(value) for _, value, _ in rows)
    lines = [f"  {name:14}{value:>{width}}  {what}" for name, value, what in rows]
    return [*lines, _assumed(config, hardware, utilization)]


def _fit(most: int, hardware: Hardware) -> str:
    if most <= 1e9 * hardware.gigabytes:
        return f"of {hardware.gigabytes} GB per process, before the working space of kernels"
    return (
        f"per process, more than the {hardware.gigabytes} GB of {hardware.name}: lower compute.attack_batch or "
        "batch_norm.group, or set compute.units_per_checkpoint"
    )


def _assumed(config: TrainConfig, hardware: Hardware, utilization: float) -> str:
    used: set[Precision] = {config.compute.attack_precision, config.compute.update_precision}
    lacks = hardware.bfloat16 is None and "bfloat16" in used
    peaks = " and ".join(f"{hardware.peak(name) / 1e12:g} TFLOP/s in {name}" for name in sorted(used))
    note = f"; {hardware.name} has no bfloat16 units, so its float32 counts" if lacks else ""
    begins = "; bfloat16 throughout, though training stays in float32 until both agree" if "bfloat16" in used else ""
    return (
        f"Assumed: {utilization:.0%} of the data sheet's peak ({peaks}{note}){begins}; validation, data and exchange between "
        "processes are not counted."
    )


def _flop(operations: float) -> str:
    size, unit = next(((size, unit) for size, unit in UNITS if operations >= size), UNITS[-1])
    return f"{operations / size:.3g} {unit}" if operations < 1000 * size else f"{operations:.2e} FLOP"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.0f} hours" if hours >= 10 else f"{hours:.1f} hours"
    return f"{60 * hours:.0f} minutes" if hours >= 1 / 60 else f"{3600 * hours:.0f} seconds"
