"""What was trained and what identifies the measurement: everything on the page that is no result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from s3ta.records import STATUS_OVER_BUDGET, STATUS_SETTLED
from s3ta.records.manifest import ModelConfigEntry, PreprocessingEntry
from s3ta.report.attack_text import NESTED, NORMS, attack_setting_name, identity_text, setting_name, setting_text
from s3ta.report.load_runs import Run
from s3ta.report.result_tables import Table, rate


def facts_table(runs: Sequence[Run]) -> Table:
    """What was trained and how, one column per model; a dash where the run folder does not say."""
    facts = [_facts(run) for run in runs]
    rows = [[name, *(column[name] for column in facts)] for name in facts[0]]
    return Table(["", *(run.label for run in runs)], [row for row in rows if any(cell != "–" for cell in row[1:])])


def _facts(run: Run) -> dict[str, str]:
    recipe, model, data = run.recipe, run.manifest.model, run.manifest.data
    return {
        "Recipe": _text(recipe.name),
        "Source": _text(recipe.source),
        "Parameters": _text(model.num_parameters),
        "Classes": _text(model.num_classes),
        "Training data": _settings(recipe.data),
        "Loss": _loss(recipe.loss),
        "Attack in training": "none" if _kind(recipe.loss) == "clean" else _settings(in_force(recipe.attack)),
        "Optimizer": _settings(in_force(recipe.optimizer)),
        "Schedule": _settings(in_force(recipe.schedule)),
        "Batch size": _text(recipe.batch_size),
        "Label smoothing": _text(recipe.label_smoothing),
        "Seed of training": _text(recipe.seed),
        "Opened as": _text(", ".join(text for text in (model.config.source, model.config.weights) if text)),
        "Normalisation": _normalisation(model.config.vision or model.config),
        "Evaluated on": _text(data.title),
        "Images made by": _preprocessing(data.preprocessing),
        "Targets": _text(run.manifest.targets),
        "Weights (sha256)": _text(model.sha256),
    }


def _loss(settings: Any) -> str:
    """A dash for the loss that all recipes have unless they say so: cross-entropy on attacked images."""
    text = _settings(in_force(settings))
    return "–" if text == "adversarial" else text


def _kind(settings: Any) -> Any:
    return settings.get("kind") if isinstance(settings, dict) else None


def _normalisation(config: ModelConfigEntry) -> str:
    """What a model does to pixels first."""
    if not config.mean and not config.std:
        return "–"
    order = ", BGR" if config.channel_order == "bgr" else ""
    mean, std = (" ".join(f"{x:.4g}" for x in values) for values in (config.mean or [0.0], config.std or [1.0]))
    return f"mean {mean}, std {std}{order}"


def _preprocessing(way: PreprocessingEntry) -> str:
    """How image files became pixels."""
    if way.name == "none":
        return "–"
    resized = f"shorter side {way.resize} ({way.interpolation}), " if way.resize else ""
    return f"{way.name}: {resized}centre {way.image_size}"


def in_force(settings: Any) -> Any:
    """A part of a recipe without the settings that another one switches off, such as momentum under Adam, or that are off."""
    if not isinstance(settings, dict):
        return settings
    idle = {
        ("kind", "adam"): ("momentum", "nesterov"),
        ("kind", "adamw"): ("momentum", "nesterov"),
        ("annealing", "constant"): ("annealing",),
        ("momentum", 0): ("momentum",),
        ("glimpses", "last"): ("glimpses",),
        ("num_restarts", 1): ("num_restarts",),
        ("warmup_steps", 0): ("warmup_steps", "warmup_from"),
        ("decay", "cosine"): ("decay_at", "decay_factor"),
    }
    dropped = {name for setting, names in idle.items() if setting in settings.items() for name in names}
    return {name: value for name, value in settings.items() if name not in dropped}


def _text(value: Any) -> str:
    return setting_text("", value) or "–"


def _settings(value: Any) -> str:
    """A nested config in one readable line, radii and step sizes as people write them."""
    if not isinstance(value, dict):
        return _text(value)
    parts = []
    for name, item in value.items():
        text = setting_text(name, item)
        if text in ("–", "exact") or item is False or (isinstance(item, dict) and name not in NESTED):
            continue
        parts.append(text if name in ("name", "objective", "kind", "source") else f"{setting_name(name)} {text}")
    return " · ".join(parts) or "–"


def subset(runs: Sequence[Run]) -> list[str]:
    """A warning for each run that saw only a part of its test set."""
    warnings = {}
    for run in runs:
        used, available = run.manifest.data.num_examples, run.manifest.data.num_available
        if used is not None and available is not None and used < available:
            warnings[run.label] = f"{used:,} of {available:,} images"
    if len(warnings) == len(runs) and len({*warnings.values()}) == 1:
        return [f"Measured on {text}" for text in {*warnings.values()}]
    return [f"{label}: {text}" for label, text in warnings.items()]


def departures(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Where each recipe departs from the paper; told once where all runs depart alike."""
    lists = [(run.label, run.recipe.departures) for run in runs]
    if len(runs) > 1 and all(departures == lists[0][1] for _, departures in lists):
        lists = [("All models", lists[0][1])]
    return [(label, departures) for label, departures in lists if departures]


def attack_settings(runs: Sequence[Run]) -> tuple[Table, list[tuple[str, str]]]:
    """Every setting of every attack: a table of those in which they differ, and those that all of them share."""
    attacks = list({name: attack.raw for run in runs for name, attack in run.attacks.items()}.values())
    names = [name for name in dict.fromkeys(key for settings in attacks for key in settings) if name != "name"]
    names.sort(key=lambda name: name not in ("kind", "part"))
    values = {name: {identity_text(each[name]): each[name] for each in attacks if name in each} for name in names}
    differ = [name for name in names if len(values[name]) > 1]
    rows = [[settings["name"], *(setting_text(key, settings.get(key)) for key in differ)] for settings in attacks]
    alike = {name: value for name in names if name not in differ for value in values[name].values()}
    shared = [(attack_setting_name(name), setting_text(name, value)) for name, value in alike.items()]
    return Table(["attack", *map(attack_setting_name, differ)], rows), shared


def images_from(runs: Sequence[Run]) -> str:
    """Whose images a suite of transfers uses, in one sentence; empty where each model was attacked itself."""
    source = runs[0].manifest.suite.images_from
    if source is None:
        return ""
    made = f"The adversarial images were made on {source.model} (weights {source.sha256}, suite {source.suite})"
    attacked = [run.label for run in runs if run.manifest.model.sha256 == source.sha256]
    if attacked:
        labels = " and ".join(attacked)
        return f"{made}: to {labels} they are its own, to another model what an attacker has who cannot see it."
    return f"{made}, not on the models shown: this is what an attacker achieves who cannot see the model."


def notes(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What identifies the measurement; one entry per fact, told once where all runs agree."""
    columns = [_measurement(run) for run in runs]
    notes = []
    for name in columns[0]:
        texts = [_text(column[name]) for column in columns]
        if set(texts) == {"–"}:
            continue
        each = "; ".join(f"{run.label}: {text}" for run, text in zip(runs, texts, strict=True))
        notes.append((name, texts[0] if len(set(texts)) == 1 else each))
    return notes


def _measurement(run: Run) -> dict[str, int | str | None]:
    manifest, search = run.manifest, run.manifest.search
    return {
        "Images (n)": manifest.data.num_examples,
        "Data fingerprint": manifest.data.fingerprint,
        "Seed of targets and starts": manifest.seed,
        "Precision": manifest.precision,
        "Device": manifest.device,
        "Micro-batch": manifest.micro_batch,
        "Threads": manifest.num_threads,
        "Arithmetic of the attack": f"{search.precision}{', compiled' if search.compiled else ''}"
        f"{', channels last' if search.channels_last else ''}",
        "Budget (evaluations per image)": manifest.budget,
        "Records not needed, the verdict stood already": _num_records(run, STATUS_SETTLED),
        "Records left out by the budget": _num_records(run, STATUS_OVER_BUDGET),
        "Hardware": manifest.informative.hardware,
        "Versions": ", ".join(f"{name} {version}" for name, version in manifest.informative.versions.items()),
        "Largest distance to the clean image": _largest_distance(run),
        "Clean prediction already is the target": _clean_is_target(run),
    }


def _num_records(run: Run, status: str) -> str:
    count = run.table["status"].to_pylist().count(status)
    return f"{count:,} of {run.table.num_rows:,}" if count else ""


def _largest_distance(run: Run) -> str:
    """The largest distance in each norm that an attack of the suite was measured in."""
    largest: dict[str, float] = {}
    for score in run.scores:
        if score.attack in run.attacks:
            norm = run.attacks[score.attack].made_with.norm
            largest[norm] = max(largest.get(norm, 0.0), score.max_distance)
    return ", ".join(f"{distance:.5f} ({NORMS.get(norm, norm)})" for norm, distance in largest.items() if distance)


def _clean_is_target(run: Run) -> str:
    """Told once for all attacks where it is the same: targets belong to the image, not to the attack."""
    attacks_by_rate: dict[str, list[str]] = {}
    for score in run.final_scores:
        if score.num_clean_is_target is not None:
            attacks_by_rate.setdefault(rate(score.num_clean_is_target, score.num_examples), []).append(score.attack)
    return ", ".join(f"{rate_text} ({', '.join(attacks)})" for rate_text, attacks in attacks_by_rate.items())
