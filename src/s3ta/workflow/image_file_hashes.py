"""The image files of an evaluation: `files.csv` in its folder says what each held when it was measured. That informs, and is no
part of what a measurement is; but records of other images than those that lie there now are not reported as theirs."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from s3ta.data import FileFacts, file_facts
from s3ta.data.folder_listing import quoted
from s3ta.errors import UserError
from s3ta.evaluate import EvaluationTask
from s3ta.files import sha256, write_atomic
from s3ta.workflow.fit_data_to_model import say

FILES_FILE = "files.csv"
_COLUMNS = ("example_id", *FileFacts._fields)


def files_in_manifest(task: EvaluationTask) -> dict[str, Any]:
    """What the informative part of a manifest says of image files: what was left out, a hash of what the measured ones held,
    how many have transparent pixels. Empty for arrays."""
    facts = file_facts(task.dataset, task.positions)
    if not facts:
        return {}
    return {
        "left_out": task.dataset.left_out.as_json(),
        "sha256": sha256("".join(f"{name}\n{seen.sha256}\n" for name, seen in facts.items()).encode()),
        "num_transparent": sum(seen.has_transparency for seen in facts.values()),
    }


def keep_files(folder: Path, task: EvaluationTask) -> None:
    """Write `files.csv`, unless it is there, or records are there that may be of other files."""
    facts = file_facts(task.dataset, task.positions)
    if not facts or (folder / FILES_FILE).exists() or any(folder.glob("chunk-*.parquet")):
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *((name, *seen) for name, seen in facts.items())])
    write_atomic(folder / FILES_FILE, text.getvalue().encode())


def refuse_other_files(folder: Path, task: EvaluationTask) -> None:
    """Compare the files with those that an evaluation was begun with; names and sizes are the same by then.

    Raises UserError where some hold something else now. Of an evaluation that did not keep what they held (it is older than
    `files.csv`), those that were changed after it was begun are told as a warning, for copying changes that time too."""
    facts = file_facts(task.dataset, task.positions)
    if not facts or not (folder / "manifest.json").is_file():
        return
    if (folder / FILES_FILE).is_file():
        before = _read(folder / FILES_FILE)
        other = [name for name, seen in facts.items() if before.get(name, seen.sha256) != seen.sha256]
        if other:
            raise UserError(
                f"{len(other)} of {len(facts)} image files hold something else than when {folder} was begun, in as many bytes "
                f"({quoted(other)}): its records are of the images before. Measure these in another folder with --out, or put "
                "the old files back."
            )
    elif any(folder.glob("chunk-*.parquet")):
        began = datetime.fromtimestamp((folder / "manifest.json").stat().st_mtime, UTC).isoformat()
        newer = [name for name, seen in facts.items() if seen.modified > began]
        if newer:
            say(
                "warning",
                f"{len(newer)} of {len(facts)} image files were changed or copied after {folder} was begun ({quoted(newer)}), "
                "and it did not keep what they held: if they were repaired, measure them in another folder with --out.",
            )


def _read(path: Path) -> dict[str, str]:
    """Hash of what each file held, by id."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["example_id"]: row["sha256"] for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError):
        raise UserError(
            f"{path} is damaged: remove it to go on without knowing whether the images are the same."
        ) from None
