"""Losses against plain loops, the published formulas and the authors' own code; multi-targeted where the optimum is known."""

from types import SimpleNamespace

import pytest
import torch

from s3ta.attacks import (
    PGDConfig,
    RandomKey,
    autograd_gradient,
    final_logits,
    logit_margin,
    multitargeted_objective,
    run_attack,
    targeted,
    untargeted,
)
from s3ta.attacks.objectives import ranked_target
from s3ta.errors import UserError
from s3ta.types import Trace

from .helpers import Linear, names, pictures

COUNT = 40
TIED = torch.tensor([[2.0, 2.0, 1.0, 0.0], [0.0, 3.0, 3.0, 3.0], [1.0, 1.0, 1.0, 1.0], [5.0, -1.0, 5.0, -1.0]]).double()


def _logits(num_classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(COUNT, num_classes, generator=generator, dtype=torch.float64)


def _classes(num_classes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_classes, (COUNT,), generator=generator)


def _both(num_classes):
    """Logits, labels and targets that are never the label; the label is sometimes the answer and sometimes not."""
    logits, labels = _logits(num_classes), _classes(num_classes)
    right = logits.argmax(1) == labels
    assert right.any()
    assert not right.all()
    return logits, labels, (labels + 1 + _classes(num_classes - 1, 2)) % num_classes


def _margin_by_loop(row, given):
    """Largest other value minus the given one's."""
    return max(value for i, value in enumerate(row) if i != given) - row[given]


@pytest.mark.parametrize("num_classes", [2, 3, 4, 10])
def test_margin_is_the_best_other_logit_minus_the_given_one(num_classes):
    logits, labels, targets = _both(num_classes)
    rows = logits.tolist()
    away = [_margin_by_loop(row, y) for row, y in zip(rows, labels.tolist(), strict=True)]
    onto = [-_margin_by_loop(row, t) for row, t in zip(rows, targets.tolist(), strict=True)]
    assert untargeted(labels, "margin")(logits).tolist() == away
    assert logit_margin(logits, labels).tolist() == away
    assert targeted(targets, "margin")(logits).tolist() == onto


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_margin_is_positive_exactly_where_the_attack_has_won(num_classes):
    logits, labels, targets = _both(num_classes)
    answer = logits.argmax(1)
    assert torch.equal(untargeted(labels, "margin")(logits) > 0, answer != labels)
    assert torch.equal(targeted(targets, "margin")(logits) > 0, answer == targets)
    assert (answer == targets).any()


def test_margin_is_zero_where_two_logits_tie_for_the_answer():
    assert logit_margin(TIED, torch.tensor([0, 1, 3, 2])).tolist() == [0, 0, 0, 0]
    assert logit_margin(TIED, torch.tensor([2, 0, 0, 1])).tolist() == [1, 3, 0, 6]


def _dlr_by_loop(row, label):
    """Croce and Hein 2020, equation 6."""
    ordered = sorted(row, reverse=True)
    return -(row[label] - max(z for i, z in enumerate(row) if i != label)) / (ordered[0] - ordered[2])


def _targeted_dlr_by_loop(row, label, target):
    """Croce and Hein 2020, equation 7."""
    ordered = sorted(row, reverse=True)
    return -(row[label] - row[target]) / (ordered[0] - (ordered[2] + ordered[3]) / 2)


@pytest.mark.parametrize("num_classes", [3, 4, 10])
def test_dlr_is_the_published_formula(num_classes):
    logits, labels, _ = _both(num_classes)
    expected = [_dlr_by_loop(row, y) for row, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    torch.testing.assert_close(
        untargeted(labels, "dlr")(logits), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("num_classes", [4, 5, 10])
def test_targeted_dlr_is_the_published_formula(num_classes):
    logits, labels, targets = _both(num_classes)
    rows = zip(logits.tolist(), labels.tolist(), targets.tolist(), strict=True)
    expected = torch.tensor([_targeted_dlr_by_loop(*row) for row in rows], dtype=torch.float64)
    torch.testing.assert_close(targeted(targets, "dlr", labels)(logits), expected, rtol=1e-9, atol=0)


def test_dlr_with_ties_is_finite_and_zero_where_the_answer_is_undecided():
    labels = torch.tensor([0, 1, 2, 0])
    for values in (untargeted(labels, "dlr")(TIED), targeted((labels + 1) % 4, "dlr", labels)(TIED)):
        assert torch.isfinite(values).all()
    assert untargeted(labels, "dlr")(TIED).tolist() == [0, 0, 0, 0]
    assert untargeted(torch.tensor([3, 0, 0, 1]), "dlr")(TIED)[0] == pytest.approx(2)


@pytest.mark.parametrize("loss", ["untargeted", "targeted"])
def test_dlr_does_not_change_when_logits_are_scaled_or_shifted(loss):
    logits, labels, targets = _both(6)
    dlr = untargeted(labels, "dlr") if loss == "untargeted" else targeted(targets, "dlr", labels)
    shift = _logits(1, seed=5)
    for changed in (1000 * logits, 1e-3 * logits, logits + shift, 17 * logits - shift):
        torch.testing.assert_close(dlr(changed), dlr(logits), rtol=1e-8, atol=0)
    margin = untargeted(labels, "margin")
    assert (margin(1000 * logits) - margin(logits)).abs().min() > 1  # which is what makes it different


@pytest.mark.parametrize("num_classes", [4, 7])
def test_dlr_equals_the_code_of_its_authors(num_classes):
    autopgd = pytest.importorskip("pyautoattack.autopgd_base")
    logits, labels, targets = _both(num_classes)
    theirs = autopgd.APGDAttack.dlr_loss(None, logits, labels)
    torch.testing.assert_close(untargeted(labels, "dlr")(logits), theirs, rtol=1e-12, atol=1e-12)
    theirs = autopgd.APGDAttack_targeted.dlr_loss_targeted(SimpleNamespace(y_target=targets), logits, labels)
    torch.testing.assert_close(targeted(targets, "dlr", labels)(logits), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("objective", "num_classes"), [("untargeted", 2), ("targeted", 3)])
def test_dlr_with_too_few_classes_is_refused(objective, num_classes):
    model, labels = Linear(num_classes), torch.tensor([0, 1, 0])
    config = PGDConfig(objective=objective, loss="dlr", num_attack_steps=1)
    with pytest.raises(
        UserError, match=f"dlr loss needs {num_classes + 1} classes or more, but the model has {num_classes}: choose"
    ):
        run_attack(model, pictures(3), labels, config=config, targets=1 - labels, start=pictures(3))


def test_cross_entropy_is_that_of_the_given_class():
    logits, labels, targets = _both(5)
    for sign, objective, classes in ((-1, untargeted(labels), labels), (1, targeted(targets), targets)):
        chance = [
            (torch.tensor(row).exp() / torch.tensor(row).exp().sum())[c].log().item()
            for row, c in zip(logits.tolist(), classes.tolist(), strict=True)
        ]
        torch.testing.assert_close(sign * objective(logits).float(), torch.tensor(chance), rtol=1e-4, atol=1e-5)


def test_difference_is_the_targets_logit_minus_the_true_one():
    logits, labels, targets = _both(5)
    rows = zip(logits.tolist(), labels.tolist(), targets.tolist(), strict=True)
    assert multitargeted_objective(targets, labels)(logits).tolist() == [row[t] - row[y] for row, y, t in rows]


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_of_a_trace_the_last_read_out_counts(loss):
    logits, labels, targets = _both(5)
    trace = Trace(torch.stack([_logits(5, 8), _logits(5, 9), logits]), torch.ones(3, COUNT, 1, 1, 1).double())
    assert torch.equal(final_logits(trace), logits)
    for objective in (untargeted(labels, loss), targeted(targets, loss, labels)):
        assert torch.equal(objective(trace), objective(logits))


@pytest.mark.parametrize("num_classes", [2, 5])
def test_ranked_target_is_the_wrong_class_of_that_rank(num_classes):
    logits, labels, _ = _both(num_classes)
    for rank in range(num_classes + 1):
        expected = []
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            wrong = sorted((c for c in range(num_classes) if c != label), key=lambda c: -row[c])
            expected.append(wrong[rank % len(wrong)])
        assert ranked_target(logits, labels, rank).tolist() == expected


def test_ranked_target_with_ties_goes_through_every_wrong_class_once():
    labels = torch.tensor([0, 1, 2, 3])
    ranks = torch.stack([ranked_target(TIED, labels, rank) for rank in range(3)])
    for label, seen in zip(labels.tolist(), ranks.T.tolist(), strict=True):
        assert sorted(seen) == [c for c in range(4) if c != label]
    assert ranks[:, 2].tolist() == [0, 1, 3]


RADIUS = 0.125


def _multitargeted(model, clean, labels, restart, num_steps=20):
    config = PGDConfig(
        objective="multitargeted", radius=RADIUS, step_size=RADIUS / 4, num_attack_steps=num_steps, num_restarts=4
    )
    draw = RandomKey(3, tuple(names(len(clean))), ("multi", restart), restart)
    return run_attack(model, clean, labels, config=config, draw=draw)


def test_restart_r_of_multitargeted_goes_to_the_rth_likeliest_wrong_class_of_the_clean_image():
    model, clean, labels = Linear(5), 0.2 + 0.6 * pictures(6), torch.tensor([0, 1, 2, 3, 4, 0])
    weight, order = model.weight.detach(), model(clean).detach().argsort(1, descending=True)
    for restart in range(4):
        final = _multitargeted(model, clean, labels, restart).final
        for i, label in enumerate(labels.tolist()):
            target = [c for c in order[i].tolist() if c != label][restart]
            corner = clean[i] + RADIUS * (weight[target] - weight[label]).sign()
            torch.testing.assert_close(final[i], corner, rtol=0, atol=1e-12)


def test_the_worst_of_four_restarts_on_a_linear_model_is_the_exact_optimum():
    model, clean, labels = Linear(5), 0.2 + 0.6 * pictures(40), torch.arange(40) % 5
    weight = model.weight.detach()
    with torch.no_grad():
        clean_logits = model(clean)
        margins = [logit_margin(model(_multitargeted(model, clean, labels, r).final), labels) for r in range(4)]
    optimum = []
    for i, label in enumerate(labels.tolist()):  # of z_t - z_y over the ball: Hölder's inequality, met with equality
        gains = [
            (clean_logits[i, t] - clean_logits[i, label] + RADIUS * (weight[t] - weight[label]).abs().sum()).item()
            for t in range(5)
            if t != label
        ]
        optimum.append(max(gains))
    worst = torch.stack(margins).amax(0)
    torch.testing.assert_close(worst, torch.tensor(optimum, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (torch.stack(margins) < worst - 1e-4).any(0).all()  # and no single restart would have done
    assert not any(torch.equal(margin, worst) for margin in margins)


def test_multitargeted_costs_one_forward_more():
    attacked = _multitargeted(Linear(5), pictures(3), torch.tensor([0, 1, 2]), 0, num_steps=2)
    assert attacked.num_gradients.tolist() == [[2, 2, 2]]
    assert attacked.num_forwards.tolist() == [[3, 3, 3]]


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
def test_margin_and_dlr_keep_their_gradient_where_cross_entropy_loses_it(objective):
    model, clean = Linear(5, dtype=torch.float32), pictures(60, dtype=torch.float32)
    first = model(clean).detach().topk(2).values
    clean = clean[first[:, 0] - first[:, 1] > 0.012]
    assert len(clean) > 5
    labels = model(clean).argmax(1)
    targets = (labels + 1) % 5

    def sure(images):
        return 1e4 * model(images)

    gradients = {}
    for loss in ("cross_entropy", "margin", "dlr"):
        goal = untargeted(labels, loss) if objective == "untargeted" else targeted(targets, loss, labels)
        gradients[loss] = autograd_gradient(sure, goal, clean).gradient.flatten(1).norm(dim=1)
    weight = model.weight.detach().flatten(1)
    if objective == "untargeted":
        assert (gradients["cross_entropy"] == 0).all()
        second = ranked_target(model(clean).detach(), labels, 0)
        expected = 1e4 * (weight[second] - weight[labels]).norm(dim=1)
    else:  # a sure model's cross-entropy of another class does not saturate: it is the margin already
        expected = 1e4 * (weight[targets] - weight[labels]).norm(dim=1)
    torch.testing.assert_close(gradients["margin"], expected, rtol=1e-4, atol=0)
    assert (gradients["dlr"] > 1e-2).all()
