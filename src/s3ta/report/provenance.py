"""What was trained and what identifies the measurement: everything on the page that is no result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from s3ta.records import BUDGET, SETTLED
from s3ta.report.attack_text import (
    NESTED,
    NORMS,
    attack_setting_name,
    identity_text,
    norm_of,
    setting_name,
    setting_text,
)
from s3ta.report.load_runs import Run
from s3ta.report.tables import Table, rate


def facts_table(runs: Sequence[Run]) -> Table:
    """What was trained and how, one column per model; a dash where the run folder does not say."""
    facts = [_facts(run) for run in runs]
    rows = [[name, *(column[name] for column in facts)] for name in facts[0]]
    return Table(["", *(run.label for run in runs)], [row for row in rows if any(cell != "–" for cell in row[1:])])


def _facts(run: Run) -> dict[str, str]:
    recipe, manifest = run.recipe or {}, run.manifest
    model, data = manifest["model"], manifest["data"]
    return {
        "Recipe": _text(recipe.get("name")),
        "Source": _text(recipe.get("source")),
        "Parameters": _text(model.get("num_parameters")),
        "Classes": _text(model.get("num_classes")),
        "Training data": _settings(recipe.get("data")),
        "Attack in training": _settings(in_force(recipe.get("attack"))),
        "Optimizer": _settings(in_force(recipe.get("optimizer"))),
        "Schedule": _settings(in_force(recipe.get("schedule"))),
        "Batch size": _text(recipe.get("batch_size")),
        "Label smoothing": _text(recipe.get("label_smoothing")),
        "Seed of training": _text(recipe.get("seed")),
        "Opened as": _opened(model.get("config")),
        "Normalisation": _normalisation(model.get("config")),
        "Evaluated on": _text(" ".join(str(data[key]) for key in ("source", "split") if data.get(key)) or None),
        "Images made by": _preprocessing(data.get("preprocessing")),
        "Targets": _text(manifest.get("targets")),
        "Weights (sha256)": _text(model.get("sha256")),
    }


def _opened(config: Any) -> str:
    """Where a foreign model and its weights came from."""
    told = [config.get(key) for key in ("source", "weights")] if isinstance(config, dict) else []
    return ", ".join(str(part) for part in told if part) or "–"


def _normalisation(config: Any) -> str:
    """What a model does to pixels first: its own settings, or those of its vision net."""
    settings = config if isinstance(config, dict) else {}
    settings = settings.get("vision") or settings
    mean, std = settings.get("mean"), settings.get("std")
    if not mean and not std:
        return "–"
    order = ", BGR" if settings.get("channel_order") == "bgr" else ""
    return f"mean {_numbers(mean or [0.0])}, std {_numbers(std or [1.0])}{order}"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _preprocessing(told: Any) -> str:
    """How image files became pixels."""
    if not isinstance(told, dict) or told.get("name") in (None, "none"):
        return "–"
    resized = f"shorter side {told['resize']} ({told['interpolation']}), " if told.get("resize") else ""
    return f"{told['name']}: {resized}centre {told.get('image_size')}"


def in_force(settings: Any) -> Any:
    """A part of a recipe without the settings that another one switches off, such as momentum under Adam, or that are off."""
    if not isinstance(settings, dict):
        return settings
    idle = {
        ("kind", "adam"): ("momentum", "nesterov"),
        ("annealing", "constant"): ("annealing",),
        ("momentum", 0): ("momentum",),
        ("glimpses", "last"): ("glimpses",),
        ("num_restarts", 1): ("num_restarts",),
        ("warmup_steps", 0): ("warmup_steps", "warmup_from"),
        ("decay", "cosine"): ("decay_at", "decay_factor"),
    }
    dropped = {name for (key, value), names in idle.items() if settings.get(key) == value for name in names}
    return {name: value for name, value in settings.items() if name not in dropped}


def _text(value: Any) -> str:
    if value is None or value == {} or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    warnings = []
    for run in runs:
        data = run.manifest["data"]
        used, available = data.get("num_examples"), data.get("num_available")
        if isinstance(used, int) and isinstance(available, int) and used < available:
            warnings.append((run.label, f"{used:,} of {available:,} images"))
    if len(warnings) == len(runs) and len({text for _, text in warnings}) == 1:
        return [f"Measured on {warnings[0][1]}"]
    return [f"{label}: {text}" for label, text in warnings]


def departures(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Where each recipe departs from the paper; told once where all runs depart alike."""
    found = []
    for run in runs:
        listed = (run.recipe or {}).get("departures") or []
        found.append((run.label, [listed] if isinstance(listed, str) else [str(departure) for departure in listed]))
    if len(runs) > 1 and all(departures == found[0][1] for _, departures in found):
        found = [("All models", found[0][1])]
    return [(label, departures) for label, departures in found if departures]


def attack_settings(runs: Sequence[Run]) -> tuple[Table, list[tuple[str, str]]]:
    """Every setting of every attack: a table of those in which they differ, and those that all of them share."""
    attacks = list({name: settings for run in runs for name, settings in run.attacks.items()}.values())
    names = [name for name in dict.fromkeys(key for settings in attacks for key in settings) if name != "name"]
    names.sort(key=lambda name: name not in ("kind", "part"))
    differ = []
    for name in names:
        values = {identity_text(settings[name]) for settings in attacks if name in settings}
        if len(attacks) > 1 and len(values) > 1:
            differ.append(name)
    rows = [[settings["name"], *(setting_text(key, settings.get(key)) for key in differ)] for settings in attacks]
    alike = {name: next(s[name] for s in attacks if name in s) for name in names if name not in differ}
    shared = [(attack_setting_name(name), setting_text(name, value)) for name, value in alike.items()]
    return Table(["attack", *(attack_setting_name(name) for name in differ)], rows), shared


def images_from(runs: Sequence[Run]) -> str:
    """Whose images a suite of transfers uses, in one sentence; empty where each model was attacked itself."""
    source = runs[0].manifest["suite"].get("images_from")
    if not source:
        return ""
    weights = f"weights {source.get('sha256')}, suite {source.get('suite')}"
    made = f"The adversarial images were made on {source.get('model')} ({weights})"
    own = [run.label for run in runs if run.manifest["model"].get("sha256") == source.get("sha256")]
    if own:
        return (
            f"{made}: to {' and '.join(own)} they are its own, to another model what an attacker has who cannot see it."
        )
    return f"{made}, not on the models shown: this is what an attacker achieves who cannot see the model."


def notes(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What identifies the measurement; one entry per fact, told once where all runs agree."""
    manifests = [(run.label, run.manifest) for run in runs]
    facts: list[tuple[str, list[Any]]] = [
        ("Images (n)", [manifest["data"].get("num_examples") for _, manifest in manifests]),
        ("Data fingerprint", [manifest["data"].get("fingerprint") for _, manifest in manifests]),
        ("Seed of targets and starts", [manifest.get("seed") for _, manifest in manifests]),
        ("Precision", [manifest.get("precision") for _, manifest in manifests]),
        ("Device", [manifest.get("device") for _, manifest in manifests]),
        ("Micro-batch", [manifest.get("micro_batch") for _, manifest in manifests]),
        ("Threads", [manifest.get("num_threads") for _, manifest in manifests]),
        ("Arithmetic of the attack", [_search(manifest) for _, manifest in manifests]),
        ("Budget (evaluations per image)", [manifest.get("budget") for _, manifest in manifests]),
        ("Records not needed, the verdict stood already", [_num_records(run, SETTLED) for run in runs]),
        ("Records left out by the budget", [_num_records(run, BUDGET) for run in runs]),
        ("Hardware", [manifest.get("informative", {}).get("hardware") for _, manifest in manifests]),
        ("Versions", [_versions(manifest) for _, manifest in manifests]),
        ("Largest distance to the clean image", [_largest_distance(run) for run in runs]),
        ("Clean prediction already is the target", [_clean_is_target(run) for run in runs]),
    ]
    notes = []
    for name, values in facts:
        texts = [
            "–" if value in (None, "") else f"{value:,}" if isinstance(value, int) else str(value) for value in values
        ]
        if set(texts) == {"–"}:
            continue
        same = len(set(texts)) == 1
        notes.append(
            (
                name,
                texts[0] if same else "; ".join(f"{run.label}: {text}" for run, text in zip(runs, texts, strict=True)),
            )
        )
    return notes


def _versions(manifest: dict[str, Any]) -> str:
    versions = manifest.get("informative", {}).get("versions") or {}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _search(manifest: dict[str, Any]) -> str:
    search = manifest.get("search") or {}
    extra = [told for key, told in (("compiled", "compiled"), ("channels_last", "channels last")) if search.get(key)]
    return ", ".join([str(search.get("precision") or ""), *extra])


def _num_records(run: Run, status: str) -> str:
    count = run.table["status"].to_pylist().count(status)
    return f"{count:,} of {run.table.num_rows:,}" if count else ""


def _largest_distance(run: Run) -> str:
    """The largest distance in each norm that an attack of the suite was measured in."""
    largest: dict[str, float] = {}
    for score in run.scores:
        if score.attack in run.attacks:
            norm = norm_of(run.attacks[score.attack])
            largest[norm] = max(largest.get(norm, 0.0), score.max_distance)
    return ", ".join(f"{distance:.5f} ({NORMS.get(norm, norm)})" for norm, distance in largest.items() if distance)


def _clean_is_target(run: Run) -> str:
    """Told once for all attacks where it is the same: targets belong to the image, not to the attack."""
    named: dict[str, list[str]] = {}
    for score in run.final_scores:
        if score.num_clean_is_target is not None:
            named.setdefault(rate(score.num_clean_is_target, score.num_examples), []).append(score.attack)
    return ", ".join(f"{told} ({', '.join(attacks)})" for told, attacks in named.items())
