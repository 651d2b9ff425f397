"""Our attacks and those of other libraries behind one call: (images, labels, seed) -> adversarial images.

All ascend the cross-entropy of the true label in the L-infinity ball. A library that is not installed is left out and named.
What each one does besides, read in the source of the versions in requirements.txt and counted by `Counted`:

foolbox        rel_stepsize is a share of the radius, abs_stepsize takes precedence; its backward pass also computes the
               gradients of trainable weights and leaves them summed up in `.grad`; noise from torch's global generator
torchattacks   ascends the mean over the batch, of which only signs count; noise from torch's global generator
ART            numpy arrays in and out, 32 at once unless told; weights as with foolbox, but `.grad` is cleared first; noise
               from numpy's global generator; classifies clean and final images at the end, for a line in a log; projects
               onto the ball after the box, so that an image may leave the box by a rounding; importing it makes ~/.art
pyautoattack   APGD takes one gradient more than iterations and a forward pass first; images that are wrong already are not
               attacked; where it fails it hands back the clean image; seeds torch's global generator; always from noise
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from s3ta.attacks import PGDConfig, RandomKey, run_attack

Attack: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]
"""(images, labels, seed of everything random) -> adversarial images."""
AT_ONCE = 1024
"""Images that ART may put into the model at once: more than anybody here hands over in one call."""


class Strength(NamedTuple):
    """What every library is told."""

    image_shape: tuple[int, ...]
    num_classes: int
    radius: float
    step_size: float
    """Of the attacks whose steps are all alike."""
    num_attack_steps: int
    annealed_step_size: float
    """Of the first step of our annealed attack. APGD's is fixed: twice the radius."""
    random_start: bool = True


class Candidate(NamedTuple):
    name: str
    package: str
    kind: str
    """plain: equal steps, the last iterate counts; best: falling steps, the best iterate counts."""
    make: Callable[[nn.Module, Strength], Attack]


def candidates() -> list[Candidate]:
    """Those whose library is installed, ours first; a line names the others."""
    found = []
    for candidate in _ALL:
        try:
            version(candidate.package)
            found.append(candidate)
        except PackageNotFoundError:
            print(f"skipped: {candidate.name}, for {candidate.package} is not installed (benchmarks/requirements.txt)")
    return found


def versions(found: list[Candidate]) -> str:
    return ", ".join(f"{package} {version(package)}" for package in dict.fromkeys(each.package for each in found))


class Counted(nn.Module):
    """A model that counts the images it sees forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.num_forwards = self.num_gradients = 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self.num_forwards += len(images)
        if logits.requires_grad:
            logits.register_hook(self._seen)
        return logits

    def _seen(self, gradient: Tensor) -> None:
        self.num_gradients += len(gradient)


def _s3ta_plain(model: nn.Module, strength: Strength) -> Attack:
    return _s3ta(model, _config(strength))


def _s3ta_annealed(model: nn.Module, strength: Strength) -> Attack:
    changes = {"step_size": strength.annealed_step_size, "annealing": "cosine", "keep": "best"}
    return _s3ta(model, _config(strength).model_copy(update=changes))


def _config(strength: Strength) -> PGDConfig:
    return PGDConfig(
        objective="untargeted",
        radius=strength.radius,
        step_size=strength.step_size,
        num_attack_steps=strength.num_attack_steps,
        random_start_prob=float(strength.random_start),
    )


def _s3ta(model: nn.Module, config: PGDConfig) -> Attack:
    def attack(images: Tensor, labels: Tensor, seed: int) -> Tensor:
        draw = RandomKey(seed, tuple(str(i) for i in range(len(images))), ("benchmark", 0))
        return run_attack(model, images, labels, config=config, draw=draw).final

    return attack


def _foolbox(model: nn.Module, strength: Strength) -> Attack:
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=_device(model))
    pgd = foolbox.attacks.LinfPGD(
        abs_stepsize=strength.step_size, steps=strength.num_attack_steps, random_start=strength.random_start
    )

    def attack(images: Tensor, labels: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return pgd.run(wrapped, images, labels, epsilon=strength.radius)

    return attack


def _torchattacks(model: nn.Module, strength: Strength) -> Attack:
    import torchattacks

    pgd = torchattacks.PGD(
        model,
        eps=strength.radius,
        alpha=strength.step_size,
        steps=strength.num_attack_steps,
        random_start=strength.random_start,
    )

    def attack(images: Tensor, labels: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return pgd(images, labels)

    return attack


def _art(model: nn.Module, strength: Strength) -> Attack:
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        input_shape=strength.image_shape,
        nb_classes=strength.num_classes,
        clip_values=(0.0, 1.0),
        device_type="cpu" if _device(model).type == "cpu" else "gpu",
    )
    pgd = ProjectedGradientDescent(
        classifier,
        eps=strength.radius,
        eps_step=strength.step_size,
        max_iter=strength.num_attack_steps,
        num_random_init=int(strength.random_start),
        batch_size=AT_ONCE,
        verbose=False,
    )

    def attack(images: Tensor, labels: Tensor, seed: int) -> Tensor:
        np.random.seed(seed)
        return torch.from_numpy(pgd.generate(images.cpu().numpy(), labels.cpu().numpy())).to(images)

    return attack


def _apgd(model: nn.Module, strength: Strength) -> Attack:
    from pyautoattack.autopgd_base import APGDAttack

    apgd = APGDAttack(
        model, n_iter=strength.num_attack_steps, norm="Linf", eps=strength.radius, loss="ce", device=_device(model)
    )

    def attack(images: Tensor, labels: Tensor, seed: int) -> Tensor:
        apgd.seed = seed
        return apgd.perturb(images, labels)

    return attack


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


_ALL = (
    Candidate("s3ta PGD", "s3ta", "plain", _s3ta_plain),
    Candidate("s3ta PGD, annealed, best kept", "s3ta", "best", _s3ta_annealed),
    Candidate("foolbox LinfPGD", "foolbox", "plain", _foolbox),
    Candidate("torchattacks PGD", "torchattacks", "plain", _torchattacks),
    Candidate("ART PGD", "adversarial-robustness-toolbox", "plain", _art),
    Candidate("pyautoattack APGD-CE", "pyautoattack", "best", _apgd),
)
