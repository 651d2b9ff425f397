"""The optimizer of a config, with weight decay on the right tensors."""

from __future__ import annotations

import torch
from torch import nn

from s3ta.train.config import OptimizerConfig


def build_optimizer(config: OptimizerConfig, model: nn.Module, *, fused: bool = False) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum (T6) or Adam; both take L2 as part of the gradient, on `decayed` tensors only."""
    decay = decayed(model)
    groups = [
        {"params": [p for name, p in model.named_parameters() if name in decay], "weight_decay": config.weight_decay},
        {"params": [p for name, p in model.named_parameters() if name not in decay], "weight_decay": 0.0},
    ]
    if config.kind == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov, fused=fused or None
        )
    return torch.optim.Adam(groups, lr=config.learning_rate, fused=fused or None)


def decayed(model: nn.Module) -> set[str]:
    """Names of the tensors that weight decay applies to: kernels and matrices of convolutions, linear layers and the
    LSTM; not biases, BN, or the learned initial state (T7, T8, X29)."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and name.rpartition(".")[2].startswith("weight")
    }
