"""Mistakes of a command line that show before anything is opened, so that they are answered at once. Imports no torch."""

from __future__ import annotations

from s3ta.errors import UserError


def refuse_mistakes(
    model: str, suite: str | None, attacks: list[str], radius: float | None, overrides: list[str]
) -> None:
    """UserError for a model that does not exist, and for a suite, attacks or settings that fit no model.

    A suite that nobody names is the recipe's, which only the model's folder knows: its settings are judged later."""
    from s3ta.models import refuse_unknown_source

    refuse_unknown_source(model)
    if suite is None and not attacks:
        return
    from s3ta.evaluate import AttackContext, build_suite, norm_of_overrides

    situation = AttackContext(num_glimpses=1, is_stated=radius is not None, norm=norm_of_overrides(overrides))
    situation = situation if radius is None else situation._replace(radius=radius)
    try:
        build_suite(suite, attacks, situation, False, overrides)
    except UserError as error:
        try:  # a model without glimpses leaves out the attacks on them, and what is wrong with these
            build_suite(suite, attacks, situation._replace(num_glimpses=None), False, overrides)
        except UserError:
            raise error from None
