"""Open any classifier: ours, `timm:NAME`, `torchvision:NAME`, `example:NAME`, or what a factory `package.module:name` makes.

A factory is code, so it is named by the caller in Python or on the command line, never by a file of settings.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from s3ta.errors import UserError, unknown_name
from s3ta.external_code_errors import ForeignError, attribute, guarded, set_mode
from s3ta.models.cast_to_float32 import cast_to_float32, leave_inference_mode
from s3ta.models.classifier_wrapper import (
    Classifier,
    ModelMetadata,
    device_of,
    model_metadata,
    rewrapped,
    select_outputs,
)
from s3ta.models.example_networks import from_example
from s3ta.models.external_normalisation import choose_normalisation, refuse_contradiction, same_numbers
from s3ta.models.external_weights import FillResult, fill
from s3ta.models.load_options import LoadOptions, is_external, refuse_unknown_source
from s3ta.models.pretrained import from_pretrained
from s3ta.models.probe_num_outputs import num_outputs
from s3ta.models.timm_torchvision import BuiltNetwork, from_timm, from_torchvision
from s3ta.models.vision import NativeClassifier
from s3ta.models.weight_files import split_key
from s3ta.process_state import process_state_kept, seeded_global_generators


def open_model(source: str | Path, options: LoadOptions | None = None) -> NativeClassifier | Classifier:
    """A classifier in eval mode, on the CPU unless a factory put it elsewhere.

    Args:
      source: a run folder, a model folder, a Hub id (see `from_pretrained`), or a name as `is_external` knows them.
      options: what is said about it.
    Raises UserError: it cannot be found, fetched, imported or filled, or something said about it is missing or wrong."""
    options, text = options or LoadOptions(), str(source)
    for what in ("num_classes", "image_size", "in_channels"):
        value = getattr(options, what)
        if value is not None and value < 1:
            raise UserError(f"{what} is {value}: it must be 1 or more.")
    if options.ignored and options.file is None:
        raise UserError("--ignore-keys leaves something out of a file of weights: give one with --weights FILE.")
    refuse_unknown_source(text)
    if not is_external(text):
        return _agreeing(from_pretrained(text), text, options)
    library, _, name = text.partition(":")
    if library == "example":
        return _wrapped(from_example(name, options), text, options)
    if (build := {"timm": from_timm, "torchvision": from_torchvision}.get(library)) is not None:
        file = None if options.file is None else split_key(options.file).path
        return _wrapped(build(name, options, file), text, options)
    with _here_importable():  # the forward pass that `_wrapped` makes may still import something
        made = _call(text, _factory(text))
        set_mode(made, mode=False)
        _refuse_meta(made, text)
        if options.weights in ("pretrained", "random"):
            raise UserError(
                f"{text} decides itself on its weights: leave out --weights {options.weights}, or give a file."
            )
        if isinstance(made, NativeClassifier) or isinstance(attribute(made, "card"), ModelMetadata):
            model = _filled(made, text, options)
            info = model_metadata(model)
            answers = num_outputs(model, info.in_channels, info.image_size, text, options.micro_batch)
            if answers != info.num_classes:
                raise UserError(
                    f"{text} says that it has {info.num_classes} classes, and answers with {answers} numbers for an image."
                )
            return _agreeing(model, text, options._replace(weights=None))
        return _wrapped(_from_factory(made, text, options), text, options)


# --- factories ----------------------------------------------------------------------------------------------------


@contextmanager
def _here_importable() -> Iterator[None]:
    """The current folder first among those that modules come from."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _factory(source: str) -> Any:
    """What `package.module:name` names. Importing a module runs it."""
    module_name, _, path = source.partition(":")
    importlib.invalidate_caches()
    shadowing = _shadowing_file(module_name)
    if shadowing is not None and module_name.partition(".")[0] in sys.stdlib_module_names:
        raise shadowing
    try:
        with guarded(f"Importing {module_name}"), seeded_global_generators(0), process_state_kept(module_name):
            target = importlib.import_module(module_name)
    except ForeignError as error:
        missing = error.__cause__
        if isinstance(missing, ModuleNotFoundError) and f"{module_name}.".startswith(f"{missing.name}."):
            raise UserError(
                f"There is no module {missing.name} to import for {source}: not in the current folder, nor installed."
            ) from None
        raise
    for name in path.split("."):
        if not hasattr(target, name):
            if shadowing is not None:
                raise shadowing
            public = [
                known
                for known, value in vars(target).items()
                if not known.startswith("_") and callable(value) and getattr(value, "__module__", None) == module_name
            ]
            raise unknown_name(f"name in {module_name}:", path, public or ["nothing"])
        target = getattr(target, name)
    return target


def _shadowing_file(module_name: str) -> UserError | None:
    """What to say where a file of the current folder is called like a module that is loaded already from elsewhere."""
    first = module_name.partition(".")[0]
    files = [path for path in (Path.cwd() / f"{first}.py", Path.cwd() / first / "__init__.py") if path.is_file()]
    if first not in sys.modules or not files:
        return None
    loaded = attribute(sys.modules[first], "__file__")
    if loaded is not None and Path(loaded).exists() and any(path.samefile(loaded) for path in files):
        return None
    name = files[0].relative_to(Path.cwd()).as_posix()
    return UserError(
        f"{name} in the current folder is called like the module {first} of Python or a library, which is loaded already: "
        f"rename the {'file' if files[0].stem == first else 'folder'}."
    )


def _call(source: str, factory: Any) -> nn.Module:
    """The network that a factory makes, seeded; a network itself is taken as it is."""
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise UserError(f"{source} is a {type(factory).__name__}, not a function that makes a network.")
    with guarded(f"{source}()"), seeded_global_generators(0), process_state_kept(source.partition(":")[0]):
        made = factory()
    if not isinstance(made, nn.Module):
        raise UserError(
            f"{source}() gave a {type(made).__name__}: it must return a torch.nn.Module or a s3ta.Classifier."
        )
    return made


def _refuse_meta(net: nn.Module, source: str) -> None:
    """UserError where the network has shapes only, and no numbers."""
    empty = [name for name, value in [*net.named_parameters(), *net.named_buffers()] if value.is_meta]
    if empty:
        raise UserError(
            f"{source} is on torch's meta device, where weights have no numbers ({len(empty)} of them, the first {empty[0]}): "
            "make it on the CPU, or load weights into it (load_state_dict with assign=True)."
        )


def _from_factory(net: nn.Module, source: str, options: LoadOptions) -> BuiltNetwork:
    if options.image_size is None:
        raise UserError(
            f"{source} does not say how large its images are: give --image-size, or let it return a s3ta.Classifier."
        )
    size, channels = options.image_size, options.in_channels or _first_channels(net)

    def answers() -> bool:
        try:
            num_outputs(net, channels, size, source, options.micro_batch)
        except UserError:
            return False
        return True

    leave_inference_mode(net)
    notes = cast_to_float32(net, answers)
    return BuiltNetwork(net, source.rpartition(":")[2], "as the factory made them, seed 0", {}, notes=notes)


def _first_channels(net: nn.Module) -> int:
    """Image channels, by the first convolution; 3 where there is none."""
    return next((part.in_channels for part in net.modules() if isinstance(part, nn.Conv2d)), 3)


# --- what is said about them ---------------------------------------------------------------------------------------


def _wrapped(network: BuiltNetwork, source: str, options: LoadOptions) -> Classifier:
    """The network with everything that an evaluation must know of it."""
    in_channels = options.in_channels or _first_channels(network.net)
    image_size = options.image_size or network.image_size
    assert image_size is not None, "sources that do not know it were refused"
    stored = FillResult(None, None, {"notes": []})
    if options.file is not None:
        stored = fill(network.net, options.file, in_channels, network.unused, options.ignored)
    mean, std, notes, origins = choose_normalisation(network, stored, options, in_channels, source)
    set_mode(network.net, mode=False)
    answers = num_outputs(network.net, in_channels, image_size, source, options.micro_batch)
    if options.num_classes not in (None, answers):
        raise UserError(
            f"{source} answers with {answers} numbers for an image, not {options.num_classes}: leave out "
            "--num-classes, or give weights of a network with so many."
        )
    classifier = Classifier(
        network.net,
        name=f"{network.name}{stored.suffix}",
        num_classes=answers,
        image_size=image_size,
        in_channels=in_channels,
        mean=mean,
        std=std,
        channel_order=options.channel_order or "rgb",
        classes=options.class_names,
        view=network.view,
        config={
            "source": source,
            "weights": network.weights,
            "library": network.library,
            **stored.config,
            "notes": [*network.notes, *stored.config["notes"], *notes],
        },
    ).to(device_of(network.net))
    classifier.card = classifier.card._replace(origins=origins)
    return (classifier if options.outputs is None else select_outputs(classifier, options.outputs)).eval()


def _filled(model: nn.Module, source: str, options: LoadOptions) -> nn.Module:
    """A model that says itself what it is, with the weights of a file in place of a factory's."""
    info = model_metadata(model)
    if isinstance(model, Classifier):
        model.card = info._replace(config={"source": source, **info.config})
    if (weights := options.file) is None:
        return model
    inner = model.net if isinstance(model, Classifier) else model
    filled = fill(inner, weights, info.in_channels, ignored=options.ignored)
    if isinstance(model, Classifier):
        config = model.card.config
        refuse_contradiction("mean", tuple(config["mean"] or (0.0,)), filled.mean, source)
        refuse_contradiction("std", tuple(config["std"] or (1.0,)), filled.std, source)
        model.card = model.card._replace(name=f"{info.name}{filled.suffix}", config=config | filled.config)
    elif filled.mean is not None or filled.std is not None:
        raise UserError(f"{weights} holds a normalisation, but {source} is a model with one of its own: take it out.")
    return model


def _agreeing(model: Any, source: str, options: LoadOptions) -> NativeClassifier | Classifier:
    """A model that says itself what it is: nothing that is said beside may contradict it."""
    info = model_metadata(model)
    settings = {what: info.config.get(what) for what in ("mean", "std", "channel_order")}
    settings |= {what: getattr(info, what) for what in ("num_classes", "image_size", "in_channels")}
    for what in ("weights", *settings):
        given, setting = getattr(options, what), settings.get(what)
        same = (
            same_numbers(given, setting) if isinstance(given, tuple) and isinstance(setting, list) else given == setting
        )
        if given is not None and not same:
            raise UserError(
                f"{source} says itself what it is{'' if setting is None else f' ({what}: {setting})'}: "
                f"leave out --{what.replace('_', '-')}."
            )
    if options.class_names is not None:
        if info.classes not in (None, options.class_names):
            raise UserError(f"{source} says itself what its classes are called, and otherwise: leave the names out.")
        if len(options.class_names) != info.num_classes:
            raise UserError(f"There are {len(options.class_names)} class names for {info.num_classes} classes.")
        model = model if isinstance(model, Classifier) else rewrapped(model)
        model.card = model.card._replace(classes=options.class_names)
    return (model if options.outputs is None else select_outputs(model, options.outputs)).eval()
