"""`s3ta list`."""

from __future__ import annotations

from typing import Annotated

import typer

from s3ta.cli.shared import app, out_console, plain_errors
from s3ta.errors import unknown_name


@app.command("list", epilog="Examples:\n\ns3ta list models\n\ns3ta list recipes")
@plain_errors
def list_names(kind: Annotated[str, typer.Argument(help="models, recipes, suites or attacks.")]) -> None:
    """List what can be named: models, recipes, suites, attacks."""
    lister = {"models": _models, "recipes": _recipes, "suites": _suites, "attacks": _attacks}.get(kind)
    if lister is None:
        raise unknown_name("list", kind, ["models", "recipes", "suites", "attacks"])
    for line in lister():
        out_console.print(line)


def _models() -> list[str]:
    from s3ta.models import list_models

    return list_models()


def _recipes() -> list[str]:
    from s3ta.recipes import RECIPES

    width = max(map(len, RECIPES)) + 2
    return [f"{name:{width}}{(function.__doc__ or '').splitlines()[0]}" for name, function in RECIPES.items()]


def _suites() -> list[str]:
    from s3ta.evaluate import describe_suites

    return [f"{name:32}{description}" for name, description in describe_suites().items()]


def _attacks() -> list[str]:
    from s3ta.evaluate import ATTACKS

    return [f"{name:32}{(function.__doc__ or '').splitlines()[0]}" for name, function in ATTACKS.items()]
