"""A public attack library runs on our model unchanged, and without random start its iterates equal ours bit for bit."""

import foolbox
import pytest
import torch

from s3ta.attacks import PGDConfig, run_attack

from .helpers import pictures, small_s3ta

LABELS, TARGETS = torch.tensor([3, 0, 4]), torch.tensor([1, 2, 0])


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
@pytest.mark.parametrize("num_steps", [1, 2, 5, 20])
def test_our_iterates_equal_those_of_foolbox_bit_for_bit(objective, num_steps):
    model, clean = small_s3ta(), pictures(3, (2, 12, 10), dtype=torch.float32)
    config = PGDConfig(objective=objective, num_attack_steps=num_steps, radius=16 / 255, step_size=1.6 / 255)
    ours = run_attack(model, clean, LABELS, config=config, targets=TARGETS, start=clean).final
    criterion = (
        foolbox.criteria.Misclassification(LABELS)
        if objective == "untargeted"
        else foolbox.criteria.TargetedMisclassification(TARGETS)
    )
    attack = foolbox.attacks.LinfPGD(abs_stepsize=config.step_size, steps=num_steps, random_start=False)
    theirs = attack.run(foolbox.PyTorchModel(model, bounds=(0, 1)), clean, criterion, epsilon=config.radius)
    assert torch.equal(ours, theirs)
    assert (ours != clean).float().mean() > 0.5


def test_public_entry_point_with_random_start():
    model, clean = small_s3ta(), pictures(3, (2, 12, 10), dtype=torch.float32)
    torch.manual_seed(0)
    attack = foolbox.attacks.LinfPGD(steps=3)
    raw, clipped, success = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), clean, LABELS, epsilons=[0.0, 0.3])
    assert len(raw) == len(clipped) == 2
    assert success.shape == (2, 3)
    with torch.no_grad():
        assert torch.equal(success[1], model(clipped[1]).argmax(1) != LABELS)
