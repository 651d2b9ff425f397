"""Where in a data folder a split lies, and what tells the labels: the usual layouts, known and named.

`SPLIT/CLASS/FILE`; `CLASS/FILE` for a test set alone; Tiny-ImageNet's `val/images/FILE` with `val/val_annotations.txt`."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from s3ta.data.folder_listing import (
    ARCHIVES,
    REASONS,
    ImageFile,
    LeftOut,
    entries,
    is_image,
    kind_of,
    leads_up,
    normalize_name,
    on_one_line,
    quoted,
    shown_entries,
    used_twice,
    walk,
)
from s3ta.errors import UserError

TEST_FOLDERS = ("test", "val", "validation")
"""What the folder of the test split may be called; the first that has labels is taken."""
ANNOTATIONS, ANNOTATED = "val_annotations.txt", "images"
_NO_IMAGES = "holds no images"
_FOLDERS = {"train": ("train",), "test": TEST_FOLDERS}


class Part(NamedTuple):
    """One split of a data folder."""

    images: dict[str, list[ImageFile]]
    """By class, in order; their paths go from the data folder."""
    left_out: LeftOut
    note: str
    """What a person should know of how it was found; empty: nothing."""


def part_of(base: Path, split: str) -> Part:
    """Find the train or test part of a data folder (`refuse_no_folder`), and list it.

    Raises UserError where there is none, where its folders are not those of `train/`, or where a folder cannot be read; the
    sentence says what lies there instead, and what to do."""
    folder_names = {entry.name for entry in entries(base) if kind_of(entry)[0] == "folder"}
    known = _class_folders(base, "train", LeftOut()) if "train" in folder_names else {}
    candidates = [name for name in _FOLDERS[split] if name in folder_names]
    reasons: dict[str, str] = {}
    for name in candidates:
        reasons[name] = _no_labels(base, name, known)
        if not reasons[name]:
            break
    inside = next((name for name, reason in reasons.items() if not reason), None)
    if inside is None and set(reasons.values()) == {_NO_IMAGES}:
        inside = candidates[0]
    if inside is None and split == "test" and not candidates and _is_test_set(base):
        inside = ""
    if inside is None:
        raise _nothing_to_read(base, split, reasons)
    note = "; ".join(f"{name}/ {reason}" for name, reason in reasons.items() if reason)
    left_out = LeftOut()
    for _, name in shown_entries(base, "", left_out) if inside else ():
        if name not in ("train", *TEST_FOLDERS):  # counts once, however much lies in it
            left_out.add("beside the splits", name)
    list_part = _annotated if _is_annotated(base / inside) else _by_folder
    images = list_part(base, inside, known, left_out)
    left_out.empty += [name for name, files in images.items() if not files]
    if not any(images.values()):
        why = left_out.sentence()
        raise UserError(
            f"{on_one_line(base / inside)} holds no images: expected CLASS/*.jpg and the like"
            + (f" ({why})." if why else ".")
        )
    notes = [f"{note}, so {inside}/ is used" if note else "", used_twice(images, left_out)]
    if split == "test" and "train" in folder_names and os.path.samefile(base / inside, base / "train"):
        notes.append("the test part is the same folder as the training part")
    return Part(images, left_out, "; ".join(filter(None, notes)))


def refuse_no_folder(base: Path) -> None:
    """UserError where a data folder is missing, or is an archive or another file."""
    name = on_one_line(base)
    try:
        is_folder = stat.S_ISDIR(os.stat(base).st_mode)
    except PermissionError:
        raise UserError(
            f"The data folder {name} cannot be reached (permission is denied): allow it, or copy the data."
        ) from None
    except OSError:
        is_folder = False
    if is_folder:
        return
    if base.is_file():
        if base.name.lower().endswith(ARCHIVES):
            raise UserError(f"{name} is an archive: unpack it, and name the folder that comes out of it.")
        advice = f"name it as npz:{name}" if base.suffix == ".npz" else "name the folder that holds the images"
        raise UserError(f"{name} is a file, not a folder: {advice}.")
    packed = next(filter(Path.is_file, (base.with_name(base.name + suffix) for suffix in ARCHIVES)), None)
    if packed is not None:
        raise UserError(
            f"The data folder {name} does not exist, but {on_one_line(packed.name)} lies there: unpack it first."
        )
    endings = (base.parts[first:] for first in range(1, len(base.parts)))
    here = next(filter(Path.is_dir, (Path(*parts) for parts in endings if ".." not in parts)), None)
    if here is not None:
        raise UserError(
            f"The data folder {name} does not exist, but {on_one_line(here)} lies here: name it as "
            f"folder:{on_one_line(here)} with --data-root ."
        )
    raise UserError(f"The data folder {name} does not exist: name the folder that holds it with --data-root.")


def _class_folders(base: Path, inside: str, left_out: LeftOut) -> dict[str, str]:
    """The folders in the folder of a split, as the file system spells them, by class; what else lies there is counted.

    Raises UserError for two folders whose names differ only in how accents are composed: one class or two?"""
    folders: dict[str, str] = {}
    for entry, path in shown_entries(base, inside, left_out):
        kind, _ = kind_of(entry)
        if kind == "folder" and not leads_up(base, path):
            if normalize_name(entry.name) in folders:
                raise UserError(
                    f"{on_one_line(base / inside)} has two folders of the name '{on_one_line(entry.name)}', whose accents are "
                    "only composed otherwise (Unicode's NFC and NFD): make them one."
                )
            folders[normalize_name(entry.name)] = entry.name
        else:
            left_out.add("beside" if kind == "file" and is_image(entry.name) else REASONS.get(kind, "suffix"), path)
    return dict(sorted(folders.items()))


def _by_folder(base: Path, inside: str, known: Mapping[str, str], left_out: LeftOut) -> dict[str, list[ImageFile]]:
    """The training part names the classes, so that a test part that lacks one still counts them alike."""
    folders = _class_folders(base, inside, left_out)
    classes = list(known or folders)
    strange = [name for name in folders if name not in classes]
    if strange:
        more = f" (nor {len(strange) - 1} more of its folders)" if len(strange) > 1 else ""
        raise UserError(
            f"{on_one_line(base / inside)} has the class '{strange[0]}', which {on_one_line(base / 'train')} has not{more}."
        )
    images_by_class = {
        name: walk(base, f"{inside}/{folder}".removeprefix("/"), left_out) for name, folder in folders.items()
    }
    return {name: images_by_class.get(name, []) for name in classes}


def _no_labels(base: Path, inside: str, known: Mapping[str, str]) -> str:
    """Why the folder of a split tells no labels, in words; empty where its folders are classes."""
    if _is_annotated(base / inside):
        return ""
    beside = LeftOut()
    folders = _class_folders(base, inside, beside)
    num_loose = beside.counts["beside"]
    if not num_loose and not any(walk(base, f"{inside}/{folder}", LeftOut()) for folder in folders.values()):
        return _NO_IMAGES
    if not folders:
        return f"holds {num_loose} images without class folders"
    if not known or set(folders) & set(known) or not (num_loose or len(folders) < len(known)):
        return ""  # where none is known but there are as many as train has, that is told by name
    return f"has the {'folders' if len(folders) > 1 else 'folder'} {quoted(list(folders))}, which is no class of train/"


def _is_test_set(base: Path) -> bool:
    """Whether a folder holds CLASS/FILE or CLASS/images/FILE at once, as ImageNet-A does, and no folder of a split."""
    if _is_annotated(base):
        return True
    folders = _class_folders(base, "", LeftOut()).values()
    held = (_holds_image(base / name) or _holds_image(base / name / ANNOTATED) for name in folders)
    return "train" not in folders and any(held)


def _holds_image(folder: Path) -> bool:
    return os.path.isdir(folder) and any(
        is_image(entry.name) and not entry.name.startswith(".") for entry in entries(folder)
    )


def _nothing_to_read(base: Path, split: str, reasons: Mapping[str, str]) -> UserError:
    """No folder of the split, or none that tells labels: what lies there instead, and what to do."""
    name, names = on_one_line(base), _FOLDERS[split]
    if reasons:
        what = "; ".join(f"{part}/ {reason}" for part, reason in reasons.items())
        return UserError(
            f"{name} does not say which class its {split} images have: {what}. Put them into a folder for each class, as in "
            f"{next(iter(reasons))}/CLASS/*.jpg, name another folder, or measure a part of train/ with --split validation."
        )
    sentence = f"The data folder {name} has no folder {' or '.join(names)} in it"
    beside = LeftOut()
    folders = _class_folders(base, "", beside)
    if split == "test" and list(folders) == ["train"]:
        advice = f"measure a part of it with --split validation, or all with folder:{_absolute(base / 'train')}."
        return UserError(f"{sentence}, only train/: {advice}")
    below = [
        folder for folder in folders.values() if any((base / folder / part).is_dir() for part in ("train", *names))
    ]
    below += [folder for folder in folders.values() if folder not in below and _is_test_set(base / folder)]
    below.sort(key=lambda folder: not folder.lower().startswith(("test", "val", "dev")))
    packed = [entry.name for entry in entries(base) if entry.name.lower().endswith(ARCHIVES)]
    if below:
        return UserError(f"{sentence}: the data seem to lie one level down, in folder:{_absolute(base / below[0])}.")
    tables = [path for pattern in ("*.parquet", "*/*.parquet") for path in sorted(base.glob(pattern))]
    if tables:
        return UserError(
            f"{sentence}, but a Parquet data set ({on_one_line(tables[0].relative_to(base))}), which is not read: save its "
            f"images as files, {names[0]}/CLASS/*.png, and name that folder."
        )
    if num_loose := beside.counts["beside"]:
        return UserError(
            f"{sentence}, but {num_loose} images without class folders: put them into a folder for each class, or, if this "
            f"is one class of several, name the folder above, folder:{_absolute(base.parent)}."
        )
    if packed and not folders:
        return UserError(f"{sentence}, but the archive {on_one_line(packed[0])}: unpack it first.")
    return UserError(f"{sentence}.")


def _absolute(path: Path) -> str:
    """A path that means the same whatever --data-root is."""
    return on_one_line(os.path.abspath(path))


def unlike_folders(left_out: LeftOut, folders: Sequence[str], num_classes: int, classes: Sequence[str] | None) -> str:
    """Which class folders are too many or missing for a model of so many classes, whose names may be known, as far as can be
    told, as the beginning of a sentence.

    Suspected are, in this order: names that the model has not, or has alone; folders without images; names of another
    pattern than all others; links that lead nowhere."""
    parts = []
    if classes is not None:
        known, present = set(classes), set(folders)
        strange, missing = [c for c in folders if c not in known], [c for c in classes if c not in present]
        parts += [f"{quoted(strange)} {_is(strange)} none of the model's"] if strange else []
        parts += [f"{quoted(missing)} {_is(missing)} missing"] if missing else []
    elif left_out.empty and len(folders) > num_classes:
        parts.append(f"{quoted(left_out.empty)} {'hold' if len(left_out.empty) > 1 else 'holds'} no images")
    elif odd := _odd_names(folders):
        parts.append(f"{quoted(odd)} {_is(odd)} named otherwise than all others")
    if links := left_out.first.get("link", []):
        parts.append(f"{quoted(links)} {_is(links)} a link that leads nowhere")
    packed = [name for name in left_out.first.get("suffix", []) if name.lower().endswith(ARCHIVES)]
    if packed and len(folders) < num_classes:
        parts.append(f"{quoted(packed)} {_is(packed)} packed and may be what is missing: unpack it")
    if not parts and len(folders) == 1:
        parts.append(f"its only class folder is '{folders[0]}', so its images seem not to be sorted into classes")
    if not parts:
        parts.append(f"its class folders are {quoted(folders)}")
    return f"{'; '.join(parts)}. Take away or add what does not belong or is missing, or "


def _is(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"


def _odd_names(names: Sequence[str]) -> list[str]:
    """Those few whose letters are not the ones that all others share, numbers apart: `backup` among names like `n01440764`."""
    patterns = [re.sub(r"[0-9]+", "#", name) for name in names]
    usual, count = Counter(patterns).most_common(1)[0]
    odd = [name for name, pattern in zip(names, patterns, strict=True) if pattern != usual]
    return odd if len(odd) <= max(1, count // 4) and count > 1 else []


# --- Tiny-ImageNet -------------------------------------------------------------------------------------------------------


def _is_annotated(folder: Path) -> bool:
    return os.path.isfile(folder / ANNOTATIONS) and os.path.isdir(folder / ANNOTATED)  # where closed: no


def _annotated(base: Path, inside: str, known: Mapping[str, str], left_out: LeftOut) -> dict[str, list[ImageFile]]:
    """Images whose classes a list names: lines of file name, class and more, with tabs between."""
    listed = _read_annotations(base / inside / ANNOTATIONS)
    classes = sorted(known) if known else sorted(set(listed.values()))
    strange = sorted(set(listed.values()) - set(classes))
    if strange:
        path = base / inside / ANNOTATIONS
        raise UserError(
            f"{on_one_line(path)} has the class '{strange[0]}', which {on_one_line(base / 'train')} has not."
        )
    for entry, path in shown_entries(base, inside, left_out):
        if entry.name not in (ANNOTATED, ANNOTATIONS):
            left_out.add("beside" if is_image(entry.name) else "suffix", path)
    folder = f"{inside}/{ANNOTATED}".removeprefix("/")
    unlisted = {image.path.removeprefix(f"{folder}/"): image for image in walk(base, folder, left_out)}
    images: dict[str, list[ImageFile]] = {name: [] for name in classes}
    for name in sorted(listed):
        images[listed[name]].append(unlisted.pop(name, ImageFile(f"{folder}/{name}", None)))
    for image in unlisted.values():
        left_out.add("unlabelled", image.path)
    return images


def _read_annotations(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{on_one_line(path)} cannot be read ({type(error).__name__}).") from None
    rows: Sequence[list[str]] = [line.split("\t") for line in lines if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise UserError(f"{on_one_line(path)}, line {number}: expected the name of a file, a tab, and its class.")
    return {row[0].strip(): row[1].strip() for row in rows}
