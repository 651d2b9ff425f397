"""The command line: the only place that parses arguments. `s3ta --help` and `python -m s3ta --help` show the same.

One file per command; their order here is that of `s3ta --help`.
"""

import sys
import warnings

from s3ta.cli import demo, train, show, evaluate, export, report, predict, convert, list  # isort: skip  # noqa: F401
from s3ta.attack_settings_checks import ImplausibleSettingsWarning
from s3ta.cli.shared import app, is_output_blocked
from s3ta.terminal_output import speak_plainly

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the program."""
    speak_plainly()
    warnings.simplefilter("ignore", ImplausibleSettingsWarning)  # the commands say it in their own words
    try:
        app()
    except OSError as error:  # outside of a command: of help, or of the version
        if not is_output_blocked(error):
            raise
        sys.exit(2)
