"""What others want to have of an evaluation: the adversarial images as a tensor, a leaderboard's card. Never read back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from s3ta.attacks import AutoAttackComponentConfig
from s3ta.config import format_radius
from s3ta.data import DataConfig, Dataset, Preprocessing, fetch_batch, holds_files, open_dataset, resolve_source
from s3ta.errors import UserError
from s3ta.evaluate import ImageReader
from s3ta.files import write_atomic, write_json
from s3ta.records import CLEAN, STATUS_RUN, Ledger, count_scores, is_tiny_suite
from s3ta.workflow.model import RuntimeOptions

IMAGES, CARD = "adversarial.pt", "card.json"
_AUTOATTACK = {"apgd-ce", "apgd-t", "fab-t", "square"}
CARD_FIELDS = ("name", "authors", "link", "venue", "architecture", "reported", "dataset", "additional_data")
"""What only a person can say of a model; what nobody said is empty or null in the card."""


def export_images(folder: Path, out: Path, runtime: RuntimeOptions, fields: Mapping[str, str]) -> list[Path]:
    """Write the worst image of every example, in the order of the data set, and the leaderboard's card.

    The worst image: the clean one where that is wrong already; else the first adversarial one that is wrong; else the last.
    `out` gets `adversarial.pt` (float32, N x C x H x W) and `card.json`, with what a person says of the model (`fields`).

    Raises UserError where the evaluation is unfinished, has no images, or files are in the way."""
    ledger = Ledger.read(folder)
    if not ledger.complete:
        raise UserError(f"{folder} is not finished: run its evaluation to the end first.")
    if is_tiny_suite(ledger.manifest["suite"]["name"]):
        raise UserError(f"{folder} was a trial run (--tiny): its numbers mean nothing, so there is nothing to export.")
    written = [out / IMAGES, out / CARD]
    for path in written:
        if path.exists():
            raise UserError(f"{path} is there already: choose another folder with --out.")
    unknown = [name for name in fields if name not in CARD_FIELDS]
    if unknown:
        raise UserError(f"The card has no field '{unknown[0]}' that a person fills: {', '.join(CARD_FIELDS)}.")
    table = ledger.table()
    images, num_wrong = _worst(ledger, table, _dataset(ledger.manifest, runtime))
    buffer = io.BytesIO()
    torch.save(images, buffer)
    write_atomic(out / IMAGES, buffer.getvalue())
    write_json(out / CARD, _card(ledger, table, 1 - num_wrong / len(images), fields))
    return written


def _dataset(manifest: dict[str, Any], runtime: RuntimeOptions) -> Dataset:
    data = manifest["data"]
    located = resolve_source(data["source"], runtime.data_root)
    how = {key: value for key, value in data["preprocessing"].items() if key in Preprocessing.model_fields}
    config = DataConfig(
        source=located.source,
        image_size=data["shape"][1],
        channels=1 if data["shape"][0] == 1 else 3,
        preprocessing=Preprocessing(**how) if holds_files(located.source) else None,
    )
    return open_dataset(config, data["split"], located.root, runtime.download)


def _worst(ledger: Ledger, table: pa.Table, dataset: Dataset) -> tuple[Tensor, int]:
    """The worst image of every example, and how many of them are wrong."""
    positions = {example: position for position, example in enumerate(dataset.ids)}
    rows = table.select(["example_id", "attack", "restart", "num_attack_steps", "correct", "status"]).to_pylist()
    suite = ledger.typed_manifest.suite
    last = {name: settings.num_attack_steps for name, settings in suite.settings_by_name.items()}
    chosen: dict[str, tuple[str, int]] = {}
    wrong: set[str] = set()
    for row in rows:
        name, attack = row["example_id"], row["attack"]
        if row["status"] != STATUS_RUN or name in wrong or row["num_attack_steps"] != last.get(attack, 0):
            continue
        chosen[name] = (attack, row["restart"])
        if not row["correct"]:
            wrong.add(name)
    missing = [name for name in chosen if name not in positions]
    if missing:
        raise UserError(f"Example {missing[0]} is not in {dataset.source}: name the same data with --data-root.")
    order = sorted(chosen, key=positions.__getitem__)
    attacked = [name for name in order if chosen[name][0] != CLEAN]
    images = {name: fetch_batch(dataset, [positions[name]]).images[0] for name in set(order) - set(attacked)}
    if attacked:
        stored = ImageReader(ledger).load_all([(*chosen[name], name) for name in attacked])
        images |= dict(zip(attacked, stored, strict=True))
    return torch.stack([images[name] for name in order]), len(wrong)


def _card(ledger: Ledger, table: pa.Table, worst: float, fields: Mapping[str, str]) -> dict[str, Any]:
    """The leaderboard's fields; numbers are texts in percent, as it wants them."""
    manifest = ledger.manifest
    settings = ledger.typed_manifest.suite.settings_by_name.values()
    counted = count_scores(table, cascade=ledger.typed_manifest.suite.cascade)
    clean = next(score for score in counted if score.attack == CLEAN)
    suite, model = manifest["suite"], manifest["model"]
    radii = {format_radius(attack.radius) for attack in settings if attack.radius is not None}
    standard = all(attack.raw == _standard(attack.raw) for attack in settings)
    parts = {attack.part for attack in settings}
    whole = manifest["budget"] is None and not suite["left_out"] and not any(score.num_cut for score in counted)
    is_auto = suite["cascade"] and parts == _AUTOATTACK and standard and whole
    return {
        "link": fields.get("link", ""),
        "name": fields.get("name", model["name"]),
        "authors": fields.get("authors", ""),
        "additional_data": fields.get("additional_data"),
        "number_forward_passes": 1,
        "dataset": fields.get("dataset", manifest["data"]["source"].rpartition(":")[2].lower()),
        "venue": fields.get("venue", ""),
        "architecture": fields.get("architecture", model["name"]),
        "eps": next(iter(radii)) if len(radii) == 1 else "",
        "clean_acc": f"{100 * clean.top1:.2f}",
        "reported": fields.get("reported", ""),
        "autoattack_acc": f"{100 * worst:.2f}" if is_auto else "",  # only where all four parts met all that was left
        **({} if is_auto else {"external": f"{100 * worst:.2f}"}),
        "unreliable": None,
        "s3ta": {
            "num_examples": manifest["data"]["num_examples"],
            "num_available": manifest["data"]["num_available"],
            "suite": suite["name"],
            "seed": manifest["seed"],
            "weights": model["sha256"],
            "examples": manifest["data"]["examples"],
            "is_upper_bound": not whole,
        },
    }


def _standard(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of AutoAttack's standard version for the same part, norm and radius."""
    if settings.get("kind") != "autoattack":
        return {}
    config = AutoAttackComponentConfig(part=settings["part"], norm=settings["norm"], radius=settings["radius"])
    return {key: settings[key] for key in ("name", "objective")} | config.model_dump(mode="json")
