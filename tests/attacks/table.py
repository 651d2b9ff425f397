"""One table of attacks for every family of attack tests. Between them they give every setting of every attack config a value
that is not its default, and every choice its turn (test_table.py): a setting that no test runs fails a test."""

from __future__ import annotations

from s3ta.attacks import (
    SPSA,
    AdamConfig,
    AttentionSteering,
    AutoAttackComponentConfig,
    BackpropGradient,
    BoxRegion,
    GridRegion,
    PGDConfig,
)

SHORT = {"num_attack_steps": 3, "step_size": 0.03}
"""Of PGD: as brief as it can be, but across its ball."""
PGD_ATTACKS: dict[str, PGDConfig] = {
    "targeted": PGDConfig(**SHORT),
    "untargeted": PGDConfig(**SHORT, objective="untargeted"),
    "margin": PGDConfig(**SHORT, objective="untargeted", loss="margin", keep="best"),
    "dlr": PGDConfig(**SHORT, loss="dlr"),
    "multitargeted": PGDConfig(**SHORT, objective="multitargeted", num_restarts=2),
    "divergence": PGDConfig(**SHORT, objective="divergence"),
    "local linearity": PGDConfig(**SHORT, objective="local_linearity"),
    "l2": PGDConfig(norm="l2", radius=0.5, step_size=0.2, num_attack_steps=3, random_start_prob=0.8),
    "masked l2 with momentum": PGDConfig(
        norm="l2", radius=0.5, step_size=0.4, num_attack_steps=3, mask=BoxRegion(), momentum=0.9, annealing="cosine"
    ),
    "masked": PGDConfig(
        num_attack_steps=3,
        step_size=0.05,
        mask=BoxRegion(height=0.4, width=0.75, row=0.25, column=0.5),
        annealing="linear",
    ),
    "drawn": PGDConfig(**SHORT, mask=GridRegion(rows=("#.", ".#"))),
    "read-outs": PGDConfig(**SHORT, read_outs=(1, 2)),
    "saved images": PGDConfig(**SHORT, eight_bit=True),
    "spsa": PGDConfig(num_attack_steps=2, step_size=0.04, gradient=SPSA(num_directions=3, delta=0.03, micro_batch=12)),
    "eot": PGDConfig(
        num_attack_steps=2, step_size=0.04, gradient=BackpropGradient(num_samples=2, max_shift=1, noise=0.1)
    ),
}
ADAM_ATTACKS: dict[str, AdamConfig] = {
    "adam": AdamConfig(num_attack_steps=3),
    "adam in l2": AdamConfig(
        objective="untargeted", loss="margin", norm="l2", radius=0.5, mask=BoxRegion(row=0.25, column=0.5), keep="best",
        random_start_prob=0.8, num_attack_steps=4, read_outs=(2,), num_restarts=2, gradient=BackpropGradient(num_samples=2),
        eight_bit=True, learning_rates=((0, 0.2), (3, 0.1)), beta1=0.5, beta2=0.99, epsilon=1e-6,
    ),
    "adam by dlr": AdamConfig(objective="multitargeted", num_attack_steps=2, gradient=SPSA(num_directions=3, micro_batch=12)),
    "adam drawn": AdamConfig(loss="dlr", num_attack_steps=2, mask=GridRegion(rows=("#.", ".#"))),
    "adam diverging": AdamConfig(objective="divergence", num_attack_steps=2),
    "adam by local linearity": AdamConfig(objective="local_linearity", num_attack_steps=2),
}  # fmt: skip
LOOKING: dict[str, PGDConfig | AdamConfig] = {
    "one glimpse": PGDConfig(**SHORT, glimpses="each", objective="untargeted", num_restarts=2),
    "all glimpses": PGDConfig(**SHORT, glimpses="all"),
    "more glimpses": PGDConfig(**SHORT, num_glimpses=4),
    "steered away": PGDConfig(**SHORT, steering=AttentionSteering()),
    "steered onto": PGDConfig(
        num_attack_steps=2,
        step_size=0.03,
        glimpses="all",
        steering=AttentionSteering(towards="region", region=BoxRegion(), weight=1.0),
    ),
    "steered onto what is drawn": PGDConfig(
        num_attack_steps=2,
        step_size=0.03,
        steering=AttentionSteering(towards="region", region=GridRegion(rows=("#.", ".#")), weight=0.3),
    ),
    "adam steered": AdamConfig(
        num_attack_steps=2, glimpses="each", num_glimpses=3, steering=AttentionSteering(weight=0.3)
    ),
    "adam on all glimpses": AdamConfig(num_attack_steps=2, glimpses="all"),
}
"""Attacks that look at glimpses, and so only fit a sequential model."""
AUTOATTACK: dict[str, AutoAttackComponentConfig] = {
    "apgd-ce": AutoAttackComponentConfig(radius=16 / 255, num_attack_steps=4, eight_bit=True),
    "apgd-t": AutoAttackComponentConfig(part="apgd-t", num_attack_steps=4, num_targets=2),
    "fab-t": AutoAttackComponentConfig(part="fab-t", norm="l2", radius=0.5, num_attack_steps=4, num_targets=3),
    "square": AutoAttackComponentConfig(part="square", num_attack_steps=20),
}
PLAIN: dict[str, PGDConfig | AdamConfig] = PGD_ATTACKS | ADAM_ATTACKS
"""Those of the one loop that fit any model."""
IN_THE_LOOP = PLAIN | LOOKING
ATTACKS: dict[str, PGDConfig | AdamConfig | AutoAttackComponentConfig] = IN_THE_LOOP | AUTOATTACK
