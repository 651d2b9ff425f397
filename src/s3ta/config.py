"""Strict, frozen configuration: the base class, radii written `16/255`, `a.b=c` overrides, JSON and its hash.

A config never names an import path, so that a file from a stranger can only choose among our own builders.

    >>> class Ball(Config):
    ...     radius: Radius = 16 / 255
    >>> override(Ball(), ["radius=8/255"]).radius == 8 / 255
    True
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from s3ta.errors import UserError, unknown_name


class Config(BaseModel):
    """Base of every config: frozen, no unknown keys, no silent conversion; a field's docstring is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    OUTSIDE_IDENTITY: ClassVar[frozenset[str]] = frozenset()
    """Settings that make no other experiment: prose, logging, how the same result is computed."""

    def identity(self, *, with_defaults: bool = False) -> dict[str, Any]:
        """The settings that make the experiment, as JSON values, at every depth: each that differs from its declared default,
        each that has none, and each `kind`; so a setting added later changes no identity. `with_defaults`: all of them."""
        identity = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            is_tag = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
            is_told = with_defaults or is_tag or field.is_required() or not _is_default(value, field, self)
            if is_told and name not in self.OUTSIDE_IDENTITY:
                identity[name] = _identity(value, with_defaults=with_defaults)
        return identity


def _is_default(value: Any, field: FieldInfo, config: Config) -> bool:
    default = field.get_default(call_default_factory=True, validated_data=vars(config))
    return type(value) is type(default) and _identity(value) == _identity(default)


def _identity(value: Any, *, with_defaults: bool = False) -> Any:
    """The identity of a config, or of those in a tuple; of any other value its JSON form."""
    if isinstance(value, Config):
        return value.identity(with_defaults=with_defaults)
    if isinstance(value, tuple):
        return [_identity(part, with_defaults=with_defaults) for part in value]
    return to_jsonable_python(value)


SYNONYMS = {
    "radius": ("eps", "epsilon", "max_norm", "bound"),
    "step_size": ("alpha", "eps_iter", "eps_step", "stepsize", "step_length", "rel_stepsize"),
    "num_attack_steps": (
        *("steps", "num_steps", "iters", "iterations"),
        *("n_iter", "nb_iter", "num_iter", "max_iter", "niter"),
    ),
    "num_restarts": ("restarts", "n_restarts", "nb_restarts", "random_restarts"),
    "objective": ("targeted",),
    "norm": ("p", "ord", "lp", "threat_model"),
    "num_train_steps": ("epochs", "max_steps", "total_steps"),
    "learning_rate": ("lr", "base_lr"),
}
"""What other libraries call our settings: where one of these is asked for, ours is named."""

ConfigT = TypeVar("ConfigT", bound=Config)


def parse_radius(value: Any) -> Any:
    """`"16/255"` or `"0.1"` -> float. Anything that is not text is passed on for pydantic to judge."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"\s*[0-9.eE+-]+\s*(/\s*[0-9.]+\s*)?", value):
        raise ValueError(f"'{value}' is neither a number nor a fraction such as 16/255")
    top, _, bottom = value.partition("/")
    if bottom and float(bottom) == 0:
        raise ValueError(f"'{value}' divides by zero")
    return float(top) / float(bottom) if bottom else float(top)


def format_radius(radius: float) -> str:
    """A radius as people write it: `16/255` where it is a multiple of 0.1/255, else the plain number."""
    in_255 = radius * 255
    if in_255 and abs(in_255 * 10 - round(in_255 * 10)) < 1e-6 and abs(radius * 1000 - round(radius * 1000)) > 1e-6:
        return f"{round(in_255, 1):g}/255"
    return f"{radius:g}"


Radius = Annotated[float, BeforeValidator(parse_radius), Field(ge=0, le=1, allow_inf_nan=False)]
"""A distance between images in [0, 1] pixels, L-infinity unless said; typed as `16/255` or `0.1`."""


def to_json(config: Config) -> str:
    """The whole config as JSON text that `from_json` reads back to an equal config."""
    return config.model_dump_json(indent=2)


def from_json(cls: type[ConfigT], text: str | bytes, where: str) -> ConfigT:
    """Read a config strictly. Raises UserError, with the source `where`, for text that is not JSON, unknown keys, wrong types
    and values out of range."""
    try:
        return cls.model_validate_json(text)
    except ValidationError as error:
        raise UserError(_sentence(error, where)) from None


def config_hash(config: Config) -> str:
    """Twelve hexadecimal digits that change whenever the config's identity does."""
    canonical = json.dumps(config.identity(), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def override(config: ConfigT, assignments: list[str]) -> ConfigT:
    """A copy of the config with `a.b=c` assignments applied, in order, then checked as a whole.

    A part that is None begins with its defaults where one of its settings is named. Another `kind` of a part keeps the settings
    that both kinds have, drops the others and brings its own defaults.

    Raises UserError for a word without `=`, a name that does not exist (nearest names offered) or a bad value."""
    tree = config.model_dump(mode="json")
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise UserError(f"'{assignment}' is not an override: write name=value, for example attack.radius=8/255.")
        _begin_optional_parts(type(config), tree, path.split("."))
        _assign(tree, path, text)
        if path.endswith(".kind"):
            tree = _with_new_kind(type(config), tree, path, assignment)
    where = f"override {' '.join(assignments)}" if assignments else "config"
    return from_json(type(config), json.dumps(tree), where)


def changed(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """A copy with other settings, unchecked; those of a part stand in a mapping of their own."""
    parts = {name: changed(getattr(config, name), value) for name, value in changes.items() if isinstance(value, dict)}
    return config.model_copy(update={**changes, **parts})


def _begin_optional_parts(kind: type[Config], tree: dict[str, Any], names: list[str]) -> None:
    """Every part on the way that is None, and can be but one config, is there afterwards, with its defaults."""
    for name, following in pairwise(names):
        field = kind.model_fields.get(name)
        parts = [] if field is None else _configs_in(field.annotation)
        if name in tree and tree[name] is None and len(parts) == 1:
            fields = parts[0].model_fields.items()
            defaults = {key: None if each.is_required() else each.get_default() for key, each in fields}
            tree[name] = to_jsonable_python(defaults)
        part = next((part for part in parts if following in part.model_fields), None)
        if part is None or not isinstance(tree.get(name), dict):
            return
        kind, tree = part, tree[name]


def _configs_in(annotation: Any) -> list[type[Config]]:
    """The kinds of config that a setting may be."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _configs_in(part)]


def _assign(tree: dict[str, Any], path: str, text: str) -> None:
    *parents, last = names = path.split(".")
    node: Any = tree
    for depth, name in enumerate(names):
        prefix = "".join(f"{parent}." for parent in names[:depth])
        if not isinstance(node, dict):
            raise UserError(f"Unknown setting '{path}': {prefix.rstrip('.')} is one value and has no parts.")
        if name not in node:
            for field in node:
                if name.lower() in SYNONYMS.get(field, ()):
                    raise UserError(f"Unknown setting '{path}'. Here it is called {prefix}{field}.")
            raise unknown_name("setting", path, [prefix + key for key in node], "s3ta show RECIPE")
        if depth < len(parents):
            node = node[name]
    try:
        node[last] = json.loads(text)
    except json.JSONDecodeError:
        node[last] = float(text) if re.fullmatch(r"[+-]?(\d+\.?|\d*\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE) else text


def _with_new_kind(cls: type[Config], tree: dict[str, Any], path: str, assignment: str) -> dict[str, Any]:
    """The tree with one part of another kind: settings that it does not have are dropped, those it lacks are added."""
    node = tree
    for name in path.split(".")[:-1]:
        node = node[name]
    while True:
        try:
            return cls.model_validate_json(json.dumps(tree)).model_dump(mode="json")
        except ValidationError as error:
            foreign = {str(p["loc"][-1]) for p in error.errors() if p["type"] == "extra_forbidden"} & set(node)
            if not foreign:
                raise UserError(_sentence(error, f"override {assignment}")) from None
            for name in foreign:
                del node[name]


def _sentence(error: ValidationError, where: str) -> str:
    problems = []
    for problem in error.errors()[:3]:
        path = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "union_tag_not_found":
            message = "it needs a `kind`"
        whole = problem["type"] == "missing" or isinstance(problem["input"], dict)
        got = "" if whole else f" (got {json.dumps(problem['input'], default=str)[:60]})"
        of_whole = not path and problem["type"] == "value_error"  # a rule that ties several settings
        problems.append(f"{message}{got}" if of_whole else f"{path or 'text'}: {message}{got}")
    return f"Bad {where}: {'; '.join(problems)}."


def describe(config: Config, path: str = "") -> list[tuple[str, str, str]]:
    """Every setting of a config as (dotted name, value as JSON, what it means)."""
    lines = []
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config):
            lines += describe(value, f"{path}{name}.")
        else:
            value = config.model_dump(mode="json", include={name})[name]
            lines.append((path + name, json.dumps(value), " ".join((field.description or "").split())))
    return lines
