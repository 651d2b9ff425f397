"""What a user can get wrong with examples, labels, targets and models: one sentence each, and no other error."""

import warnings
from collections import UserDict

import jaxtyping
import pytest
import torch

from s3ta.attack_settings_checks import ImplausibleSettingsWarning
from s3ta.attacks import SPSA, AdamConfig, NotFiniteError, PGDConfig, RandomKey, draw_start, run_attack
from s3ta.attacks.input_validation import check_answer
from s3ta.errors import UserError
from s3ta.types import Trace

from .helpers import Linear, names, pictures
from .table import PLAIN as ATTACKS

LABELS, TARGETS = torch.tensor([0, 1, 2]), torch.tensor([4, 3, 0])
NAN, INF = float("nan"), float("inf")

every_attack = pytest.mark.parametrize("attack", ATTACKS)
targeted_ones = pytest.mark.parametrize("attack", [name for name in ATTACKS if ATTACKS[name].objective == "targeted"])


@pytest.fixture(autouse=True)
def _as_users_run_it():
    """The shape checks that the other tests switch on would speak first."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def _run(attack="targeted", model=None, clean=None, labels=LABELS, targets=TARGETS, **given):
    whole = (pictures(3) * 255).round() / 255 if ATTACKS[attack].eight_bit else pictures(3)
    clean = whole if clean is None else clean
    given = given or {"draw": RandomKey(0, tuple(names(len(clean))))}
    model = Linear(5) if model is None else model
    return run_attack(model, clean, labels, config=ATTACKS[attack], targets=targets, **given)


def _refusal(*args, **given):
    """The sentence, which must be one."""
    with pytest.raises(UserError) as error:
        _run(*args, **given)
    message = str(error.value)
    assert message[0].isupper()
    assert message.endswith((".", ")."))
    assert "\n" not in message
    assert len(message) < 220
    return message


@every_attack
def test_examples_and_models_in_order_are_not_refused(attack):
    final = _run(attack).final
    assert final.shape == (3, 2, 5, 7)
    assert not torch.equal(final, pictures(3))


@every_attack
@pytest.mark.parametrize("bad", [-1, 5, 1000])
def test_a_label_that_is_no_class_is_refused(attack, bad):
    labels = torch.tensor([0, bad, 2])
    assert _refusal(attack, labels=labels) == f"A label is {bad}, but the model has classes 0 to 4."


@targeted_ones
@pytest.mark.parametrize("bad", [-1, 5])
def test_a_target_that_is_no_class_is_refused(attack, bad):
    targets = torch.tensor([1, 2, bad])
    assert _refusal(attack, targets=targets) == f"A target is {bad}, but the model has classes 0 to 4."


@targeted_ones
def test_a_target_that_equals_the_label_is_refused(attack):
    targets = torch.tensor([1, 2, 2])
    assert _refusal(attack, targets=targets) == "Example 2 of the batch has its own label as the target."


def test_targets_are_ignored_where_the_attack_has_none():
    plain = _run("untargeted", targets=None).final
    assert torch.equal(_run("untargeted", targets=torch.tensor([0, 99, -7])).final, plain)


def test_a_model_with_fewer_classes_than_the_labels_is_refused():
    assert _refusal(model=Linear(2), targets=LABELS + 1) == "A label is 2, but the model has classes 0 to 1."


@every_attack
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_logits_that_are_not_finite_are_refused(attack, value):
    broken = torch.ones(5, dtype=torch.float64)
    broken[3] = value
    model = Linear(5)
    sentence = "The model's logits are not finite (NaN or infinite): it cannot be attacked or scored."
    with pytest.raises(NotFiniteError) as error:
        _run(attack, lambda images: model(images) * broken)
    assert str(error.value) == sentence


@every_attack
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (-0.5, "The images under attack have values from -0.5 to "),
        (255.0, " to 255: give pixels in [0, 1] and put normalisation into the model."),
        (NAN, "The images under attack have values that are not numbers (NaN): give pixels in [0, 1]"),
        (INF, " to inf: give pixels in [0, 1]"),
    ],
)
def test_images_outside_the_box_are_refused_before_anything_else(attack, value, sentence):
    model, clean = Linear(5), pictures(3)
    clean[1, 1, 2, 3] = value
    assert sentence in _refusal(attack, model, clean, labels=LABELS + 100)
    assert model.calls == 0


@every_attack
def test_an_empty_batch_is_refused(attack):
    none = torch.empty(0, dtype=torch.int64)
    assert _refusal(attack, clean=pictures(3)[:0], labels=none, targets=none) == "There are no images to attack."


@pytest.mark.parametrize(
    ("clean", "what"),
    [
        (pictures(3)[0], "shape (2, 5, 7) and type float64"),
        (pictures(3).flatten(1), "shape (3, 70) and type float64"),
        (torch.ones(3, 2, 5, 7, dtype=torch.uint8), "shape (3, 2, 5, 7) and type uint8"),
    ],
)
def test_images_without_four_dimensions_or_of_integers_are_refused(clean, what):
    sentence = (
        f"The images under attack have {what}: give (images, channels, height, width) of floating point in [0, 1]."
    )
    assert _refusal(clean=clean) == sentence


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (torch.tensor([0, 1]), "shape (2,) and type int64"),
        (torch.tensor([[0], [1], [2]]), "shape (3, 1) and type int64"),
        (torch.tensor(1), "shape () and type int64"),
        (torch.tensor([0.0, 1.0, 2.0]), "shape (3,) and type float32"),
        (torch.tensor([0, 1, 2], dtype=torch.int32), "shape (3,) and type int32"),
    ],
)
def test_labels_and_targets_must_be_one_class_per_image(bad, what):
    model = Linear(5)
    for name in ("labels", "targets"):
        sentence = f"The {name} have {what}: give one class per image, shape (3,) and type int64."
        assert _refusal(model=model, **{name: bad}) == sentence
    assert model.calls == 0


@every_attack
@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda logits: logits[:, 0], "(COUNT,)"),
        (lambda logits: logits[:, :, None], "(COUNT, 5, 1)"),
        (lambda logits: logits.sum(), "()"),
        (lambda logits: logits[:1], "(1, 5)"),
        (lambda logits: logits[1:], "(FEWER, 5)"),
    ],
)
def test_logits_of_another_shape_are_refused(attack, change, shape):
    model = Linear(5)
    count = 12 if attack == "spsa" else 3  # two mirrored probes of three images in two directions
    shape = shape.replace("COUNT", str(count)).replace("FEWER", str(count - 1))
    sentence = f"The model answers {count} images with shape {shape}: it must give (images, classes) logits."
    assert _refusal(attack, lambda images: change(model(images))) == sentence


def test_a_single_logit_per_image_is_refused():
    sentence = "The model has one class: an attack needs two or more; a yes-or-no logit z is the pair (0, z)."
    nothing = torch.zeros(3, dtype=torch.int64)
    for attack in ("untargeted", "multitargeted"):
        assert _refusal(attack, Linear(1), labels=nothing) == sentence
    paired = Linear(1)
    final = _run(
        "untargeted", lambda images: torch.nn.functional.pad(paired(images), (1, 0)), labels=nothing, targets=None
    ).final
    assert not torch.equal(final, pictures(3))


@every_attack
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda logits: (logits, logits), "tuple"),
        (lambda logits: [logits], "list"),
        (lambda logits: UserDict(logits=logits), "UserDict"),
        (lambda logits: None, "NoneType"),
        (lambda logits: logits.detach().numpy(), "ndarray"),
    ],
)
def test_answers_that_are_no_tensor_of_logits_are_refused(attack, change, kind):
    model = Linear(5)
    assert _refusal(attack, lambda images: change(model(images))) == (
        f"The model answers with a {kind}: it must give a tensor of logits, or a Trace "
        "(wrap it: lambda images: model(images)[0])."
    )


@pytest.mark.parametrize("attack", [name for name in ATTACKS if not isinstance(ATTACKS[name].gradient, SPSA)])
def test_a_model_without_gradients_is_refused_where_they_are_needed(attack):
    model = Linear(5)
    sentence = "The model's logits have no gradient to the image: remove `no_grad` or `detach` from the model,"
    assert _refusal(attack, torch.no_grad()(model.forward)).startswith(sentence)
    assert _refusal(attack, lambda images: model(images).detach()).startswith(sentence)


def test_a_model_without_gradients_may_be_attacked_without_them():
    model = Linear(5)
    assert torch.equal(_run("spsa", torch.no_grad()(model.forward)).final, _run("spsa").final)


def test_a_trace_is_judged_by_its_last_read_out():
    model = Linear(5)

    def unrolled(images, last=1.0):
        logits = model(images)
        return Trace(torch.stack([torch.full_like(logits, NAN), logits * last]), torch.ones(2, len(images), 1, 1, 1))

    assert torch.equal(_run(model=unrolled).final, _run().final)
    assert _refusal(model=lambda images: unrolled(images, NAN)).startswith("The model's logits are not finite")


@pytest.mark.parametrize("given", ["draw", "start"])
def test_a_given_start_and_a_drawn_start_are_refused_alike(given):
    clean = pictures(3)
    start = {"draw": {}, "start": {"start": clean}}[given]
    assert _refusal(clean=clean, labels=torch.tensor([0, 9, 2]), **start).startswith("A label is 9")
    assert _refusal(clean=clean - 2, **start).startswith("The images under attack have values from -")


def _softmax(images, model=Linear(5)):  # noqa: B008
    return model(images).softmax(dim=1)


@every_attack
def test_probabilities_are_warned_of_once_and_attacked(attack):
    with pytest.warns(
        UserWarning, match=r"seems to answer with probabilities, not logits: .* Return logits, or"
    ) as seen:
        final = _run(attack, _softmax).final
    assert len(seen) == 1
    assert not torch.equal(final, pictures(3))


SOFT = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("logits", "is_warned"),
    [
        (SOFT, True),
        (SOFT.float() + 1e-5, True),
        (SOFT.log().clamp(min=-50), False),  # logarithms of probabilities are logits
        (torch.tensor([[-0.2, 0.9, 0.3], [0.0, 0.0, 1.0]]), False),  # sums to one, but one is negative
        (torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.5, 1.0]]), False),  # one row does not sum to one
        (torch.tensor([[20.0, 50.0, 30.0], [0.0, 0.0, 100.0]]), False),
        (torch.zeros(2, 3), False),
    ],
)
def test_only_what_looks_like_probabilities_is_warned_of(logits, is_warned):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_answer(logits, 2, torch.tensor([0, 1]), None)
    assert [warning.category for warning in seen] == [UserWarning] * is_warned


def test_logits_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run()


def test_only_the_first_answer_is_judged():
    """Later ones are the loop's to judge, by their gradients: a check of each would wait for the device at every step."""
    model, calls = Linear(5), []

    def later(images):
        calls.append(1)
        return model(images) if len(calls) == 1 else model(images)[:, :, None].expand(-1, -1, 1)[..., 0].softmax(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run(model=later)
    assert len(calls) == ATTACKS["targeted"].num_attack_steps


def test_an_empty_batch_is_refused_before_its_starts_are_drawn():
    """An empty batch would make the start fail in numpy's words; the attack speaks first."""
    with pytest.raises(ValueError, match="at least one array"):
        draw_start(ATTACKS["targeted"], 0, [], pictures(3)[:0])
    none = torch.empty(0, dtype=torch.int64)
    assert _refusal(clean=pictures(3)[:0], labels=none, targets=none) == "There are no images to attack."


# --- numbers that are nearly right ------------------------------------------------------------------------------------


def test_pixels_a_rounding_beyond_the_box_are_let_pass():
    clean = pictures(3, dtype=torch.float32).clamp(0.1, 0.9)
    clean[0, 0, 0, :2] = torch.tensor([1.0000001, -1e-7])
    final = _run(clean=clean, model=Linear(5, dtype=torch.float32)).final
    assert final.min() >= 0
    assert final.max() <= 1


@pytest.mark.parametrize(("value", "told"), [(1.00001, "1.00001001"), (-2e-6, "-1.99999999e-06"), (1.5, "1.5")])
def test_pixels_beyond_the_box_are_named_with_their_digits(value, told):
    clean = pictures(3, dtype=torch.float32).clamp(0.1, 0.9)
    clean[0, 0, 0, 0] = value
    assert told in _refusal(clean=clean)


@pytest.mark.parametrize("attack", ["targeted", "l2", "eot", "adam"])
def test_inference_mode_is_named_as_what_it_is(attack):
    with torch.inference_mode():
        assert "Inside `torch.inference_mode()` there are no gradients" in _refusal(attack)


def test_inference_mode_is_no_obstacle_without_gradients():
    with torch.inference_mode():
        _run("spsa")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_of_16_bits_is_attacked_in_float32_with_a_warning(dtype):
    """Small steps would be lost in iterates of 16 bits: with 1/10 of 8/255 each, bfloat16 pixels near 1 never move."""
    model, clean = Linear(5, dtype=torch.float32), pictures(3, dtype=torch.float32).clamp(0.6, 0.9)
    clean = clean.to(dtype)
    config = PGDConfig(objective="untargeted", radius=8 / 255, step_size=0.8 / 255, random_start_prob=0.0)
    given = {"config": config, "draw": RandomKey(0, tuple(names(3)))}
    full = run_attack(model, clean.float(), LABELS, **given).final
    with pytest.warns(UserWarning, match=r"answers in (b?float16), which has too few digits"):
        half = run_attack(model.to(dtype), clean, LABELS, **given).final
    assert half.dtype == torch.float32
    moved = (half.float() - clean.float()).abs()
    assert moved.mean() > 0.9 * (full - clean.float()).abs().mean()
    assert (half.double() - clean.double()).abs().max() < 8 / 255 + 1e-7, "the ball, but for rounding in float32"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (PGDConfig(radius=0.2, num_attack_steps=10), "10 steps go 0.0392 in all, and the radius is 0.2"),
        (PGDConfig(radius=0.2, step_size=1e-5), "too short for its ball"),
        (PGDConfig(radius=0.02, step_size=0.1), "cannot settle"),
        (PGDConfig(radius=2 / 255, step_size=1 / 255, norm="l2"), "Is that a radius of the L-infinity ball"),
        (AdamConfig(radius=0.1, epsilon=1000.0), "far shorter than its rates"),
    ],
)
def test_settings_that_cannot_do_what_the_radius_says_are_warned_of(config, words):
    model, clean = Linear(5, dtype=torch.float32), pictures(3, dtype=torch.float32)
    given = {"config": config.model_copy(update={"objective": "untargeted"}), "draw": RandomKey(0, tuple(names(3)))}
    with pytest.warns(ImplausibleSettingsWarning) as caught:
        run_attack(model, clean, LABELS, **given)
    (one,) = caught
    assert words in str(one.message)


def test_settings_that_can_do_what_the_radius_says_raise_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = PGDConfig(radius=0.2, step_size=0.02, num_attack_steps=20)
        run_attack(Linear(5), pictures(3), LABELS, config=config, targets=TARGETS, draw=RandomKey(0, tuple(names(3))))


def test_a_model_that_casts_its_input_itself_raises_no_warning():
    model, clean = Linear(5, dtype=torch.float32), pictures(3, dtype=torch.float32).clamp(0.6, 0.9).half()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run(model=lambda images: model(images.float()), clean=clean)
