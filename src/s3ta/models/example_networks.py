"""Real classifiers that a package brings, so that one can be measured without a download: `example:NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import timm
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.models.classifier_wrapper import EvaluationTransform
from s3ta.models.load_options import EXAMPLES, LoadOptions, example_file
from s3ta.models.timm_torchvision import BuiltNetwork
from s3ta.models.weight_files import read_state


class ExampleNetwork(NamedTuple):
    """A network of timm whose weights a package holds under other names, and how its authors prepare an image."""

    architecture: str
    num_tensors: int
    image_size: int
    view: EvaluationTransform
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)


NETWORKS = {
    # Converted from TensorFlow: pixels to [-1, 1], crop 0.875 of 224 px (256), bicubic.
    "efficientnet_lite0": ExampleNetwork("tf_efficientnet_lite0", 296, 224, EvaluationTransform(256, "bicubic")),
}
assert NETWORKS.keys() == EXAMPLES.keys()


def from_example(name: str, options: LoadOptions) -> BuiltNetwork:
    """The example network of this name with the weights of its package.

    Raises UserError for an unknown name, a package that is not installed, weights that do not fit it, and options that ask for
    another network."""
    source, file = f"example:{name}", example_file(name)
    for what in ("weights", "in_channels", "ignored"):
        if getattr(options, what):
            raise UserError(f"{source} has weights of its own: leave out --{_OPTION.get(what, what)}.")
    network = NETWORKS[name]
    net = timm.create_model(network.architecture, pretrained=False)
    net.load_state_dict(renamed_in_order(read_state(file).value, net, network.num_tensors, file))
    package = EXAMPLES[name].package
    return BuiltNetwork(
        net,
        name,
        f"pretrained: {file.name}",
        {package: file.name, "timm": timm.__version__.partition("+")[0]},
        network.image_size,
        network.mean,
        network.std,
        network.view,
    )


_OPTION = {"in_channels": "in-channels", "ignored": "ignore-keys"}


def renamed_in_order(state: dict[str, Tensor], net: nn.Module, num_tensors: int, file: Path) -> dict[str, Tensor]:
    """Weights under the names of a network that lists the same tensors in the same order under other names.

    A name must end alike (`weight`, `running_mean`, ...) and a shape be the same, tensor by tensor.

    Raises UserError where the number of tensors, an ending or a shape differs."""
    wanted = net.state_dict()
    if not len(state) == len(wanted) == num_tensors:
        raise UserError(
            f"{file} holds {len(state)} tensors and the network has {len(wanted)}, where both must be {num_tensors}: it is "
            "another file, or timm another version."
        )
    renamed = {}
    for (stored, value), (name, place) in zip(state.items(), wanted.items(), strict=True):
        if stored.rpartition(".")[2] != name.rpartition(".")[2] or value.shape != place.shape:
            raise UserError(
                f"{file} does not fit the network: {stored} {tuple(value.shape)} stands where {name} {tuple(place.shape)} "
                "belongs."
            )
        renamed[name] = value
    return renamed
