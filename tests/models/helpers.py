"""Small models with every number shaken, so that no zero bias, unit scale or near-uniform attention hides a mistake."""

import torch

from s3ta.models import S3TAConfig, VisionConfig, build_model

TINY_HEAD = {
    "num_classes": 5,
    "num_heads": 3,
    "key_channels": 7,
    "num_frequencies": 2,
    "lstm_size": 13,
    "query_hidden": 17,
    "readout_hidden": 11,
}


def mini_config(*, stem="conv3", in_channels=2, image_size=12, **head):
    vision = VisionConfig(backbone="resnetv2_mini", stem=stem, in_channels=in_channels, image_size=image_size)
    return S3TAConfig(name="tiny", vision=vision, **({"num_glimpses": 3} | TINY_HEAD | head))


def shaken_model(**settings):
    """A small S3TA in eval mode with random BN statistics, biases and sharp queries."""
    torch.manual_seed(3)
    model = build_model(mini_config(**settings)).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.add_(0.1 * torch.randn(tensor.shape))
    with torch.no_grad():
        if model.config.queries == "learned":
            model.controller.query[2].weight.mul_(3)
        model.controller.initial_hidden.normal_()
        if model.config.cell == "lstm":
            model.controller.initial_cell.normal_()
    return model


def pictures(*shape, seed=7, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
