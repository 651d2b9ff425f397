"""The optimizer of a config, with weight decay on the right tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from s3ta.train.config import OptimizerConfig


def build_optimizer(config: OptimizerConfig, model: nn.Module, *, fused: bool = False) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum (T6) or Adam, which take L2 as part of the gradient, or AdamW; on `decayed` tensors only.

    Each group has a `factor`, that of its learning rate over the schedule's."""
    decay = decayed(model)
    factors = (1.0,) if config.backbone_factor == 1 else (config.backbone_factor, 1.0)
    groups: list[dict[str, Any]] = []
    for factor in factors:
        of_factor = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if len(factors) == 1 or name.startswith("vision.") == (factor == config.backbone_factor)
        ]
        groups += [
            {"params": [p for name, p in of_factor if name in decay], "weight_decay": config.weight_decay},
            {"params": [p for name, p in of_factor if name not in decay], "weight_decay": 0.0},
        ]
        for group in groups[-2:]:
            group["factor"] = factor
    if config.kind == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov, fused=fused or None
        )
    kind = torch.optim.Adam if config.kind == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.learning_rate, fused=fused or None)


def decayed(model: nn.Module) -> set[str]:
    """Names of the tensors that weight decay applies to: kernels and matrices of convolutions, linear layers and the
    LSTM; not biases, BN, or the learned initial state (T7, T8, X29)."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and name.rpartition(".")[2].startswith("weight")
    }
