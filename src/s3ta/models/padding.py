"""TensorFlow's SAME padding in the place of torch's symmetric one (M4a): weights of TensorFlow expect it (X19)."""

from __future__ import annotations

from typing import Any

from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn


def pad_as_tensorflow(net: nn.Module) -> None:
    """Exchange every strided convolution and pool that looks at more than one place for one with SAME padding.

    SAME makes ceil(size / stride) places and pads as little as that needs, the odd pixel behind: 7x7/2 on 224 px pads 2
    before and 3 after, 3x3/2 on an even map 0 and 1, where torch pads 3 and 1 on either side. A pool pads with minus infinity.
    At stride 1 the two are the same, and so are parameters, their names and the sizes of all maps."""
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child.stride != (1, 1) and child.kernel_size != (1, 1):
                setattr(parent, name, _same_convolution(child))
            elif isinstance(child, nn.MaxPool2d):
                size: Any = child.kernel_size
                setattr(parent, name, MaxPool2dSame(size, child.stride))


def _same_convolution(convolution: nn.Conv2d) -> Conv2dSame:
    size: Any = convolution.kernel_size
    stride: Any = convolution.stride
    assert convolution.bias is None, "strided convolutions of ResNets have none"
    same = Conv2dSame(convolution.in_channels, convolution.out_channels, size, stride, bias=False)
    same.weight = convolution.weight
    return same
