"""A command takes groups of options, each a dataclass with the annotations of Typer; Typer sees their fields one by one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of its groups as parameters, in order; parameters of other types stay as they are."""
    groups: dict[str, Any] = {name: hint for name, hint in get_type_hints(command).items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        owner: Any = groups.get(name, command)
        shown = inspect.signature(owner).parameters.values() if name in groups else [parameter]
        hints = get_type_hints(owner, include_extras=True)
        parameters += [field.replace(annotation=hints[field.name], kind=field.KEYWORD_ONLY) for field in shown]

    def called(**values: Any) -> None:
        filled = {name: group(**{f.name: values.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        command(**values, **filled)

    called.__doc__, called.__name__, called.__module__ = command.__doc__, command.__name__, command.__module__
    called.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called
