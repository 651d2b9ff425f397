"""The options that say which recipe is meant: one definition for the commands that train and show one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

RecipeName = Annotated[str, typer.Argument(help="Name from `s3ta list recipes`, or a saved JSON file.")]
BatchSize = Annotated[
    int | None,
    typer.Option(metavar="N", help="Images per update; learning rate and schedule follow.  \\[default: the recipe's]"),
]


def chosen_recipe(name: str, overrides: list[str], is_tiny: bool, batch_size: int | None = None) -> Any:
    """The recipe, shrunk, brought to a batch size and changed as asked; overrides come last, so they win."""
    from s3ta.config import override
    from s3ta.recipes import get_recipe, noting, rescaled, tiny

    recipe = get_recipe(name)
    if batch_size is not None:
        recipe = rescaled(recipe, batch_size)
    return noting(override(tiny(recipe) if is_tiny else recipe, overrides), overrides)
