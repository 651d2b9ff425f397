"""What recipes for GPUs share: how their arithmetic is done, and the settings of the field on CIFAR-10."""

from __future__ import annotations

from s3ta.attacks import PGDConfig
from s3ta.train import ComputeConfig, OptimizerConfig

GPU = ComputeConfig(
    attack_precision="bfloat16", update_precision="bfloat16", channels_last=True, fused_optimizer=True, attack_batch=128
)
"""bfloat16 products on float32 weights as soon as they agree with plain float32 (X10), which deep networks do only once they
have learned something. `compute.attack_precision` and `compute.update_precision` bring float32 back. At most 128 images are
attacked at once, on any number of GPUs."""

PRECISION = (
    "Precision: float32 until bfloat16 autocast agrees with it (X10, tried every 250 training steps), then bfloat16 in attack "
    "and update, with weights, BN statistics and losses in float32; the paper does not say how its TPUs computed, Feature "
    "Denoising used float32 (T20)."
)

FIELD_ATTACK = PGDConfig(objective="untargeted", radius=8 / 255, step_size=2 / 255, num_attack_steps=10)
"""The usual training attack on CIFAR-10."""
FIELD_OPTIMIZER = OptimizerConfig(kind="sgd", learning_rate=0.1, nesterov=False, weight_decay=5e-4)
"""Its usual optimizer, for batches of 128 (Pang et al. 2021)."""
