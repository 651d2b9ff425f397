"""`s3ta demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3ta.cli.shared import Tiny, app, plain_errors, print_table, say_report


@app.command(epilog="Examples:\n\ns3ta demo\n\ns3ta demo --tiny --out /tmp/look")
@plain_errors
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the runs and the report.  \\[default: runs/demo, or runs/demo-tiny]")
    ] = None,
    tiny: Tiny = False,
) -> None:
    """Train S3TA and its plain rival on cluttered digits, attack both, and write a report (about 6 minutes on two cores).

    Finished parts are kept: a second call repeats nothing, and one that was killed goes on."""
    from s3ta.demo import run_demo

    page, table = run_demo(out or Path("runs/demo-tiny" if tiny else "runs/demo"), tiny)
    print_table(table)
    say_report(page)
