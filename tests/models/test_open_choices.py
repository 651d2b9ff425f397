"""What the paper leaves open is a field, and the field does what it says (M4b, M7, M11a)."""

from __future__ import annotations

import torch

from s3ta.models import S3TA, S3TAConfig, build_model, model_config
from s3ta.models.attention import spatial_basis


def changed(**fields: object) -> S3TAConfig:
    config = model_config("s3ta_3_resnetv2_mini", num_classes=5, image_size=24, in_channels=1)
    assert isinstance(config, S3TAConfig)
    return config.model_copy(update=fields)


def test_the_basis_can_count_from_the_middle_of_a_pixel() -> None:
    torch.testing.assert_close(
        spatial_basis(4, 3, 1, 0.5)[0, 1, 2],
        torch.cos(torch.tensor(torch.pi * 1.5 / 4, dtype=torch.float64))
        * torch.cos(torch.tensor(torch.pi * 2.5 / 3, dtype=torch.float64)),
    )
    model = build_model(changed(basis_origin=0.5))
    assert isinstance(model, S3TA)
    torch.testing.assert_close(model.basis, spatial_basis(12, 12, 4, 0.5).float())


def test_the_feedback_can_be_detached() -> None:
    """With a read-out that only the feedback carries to the next query, detaching changes gradients and no value."""
    gradients, values = [], []
    for detach in (False, True):
        torch.manual_seed(3)
        model = build_model(changed(detach_feedback=detach)).eval()
        images = torch.rand(2, 1, 24, 24, generator=torch.Generator().manual_seed(4)).requires_grad_()
        with torch.no_grad():
            model.controller.query[0].weight.mul_(30)  # so that the fed-back logits matter
        logits = model(images)
        values.append(logits.detach())
        gradients.append(torch.autograd.grad(logits[:, 0].sum(), images)[0])
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=0)


def test_residual_units_can_begin_as_the_identity() -> None:
    config = changed()
    model = build_model(config.model_copy(update={"vision": config.vision.model_copy(update={"zero_init_last": True})}))
    for stage in model.vision.net.stages:
        assert not stage.blocks[0].conv2.weight.any()
    assert build_model(config).vision.net.stages[0].blocks[0].conv2.weight.any()
