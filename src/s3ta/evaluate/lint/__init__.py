"""The lint of a model before it is measured: mistakes that give a number, and a wrong one (A2, A3; X1, X3, X13, X17, X37).

`lint` asks a few dozen times and gives one `Finding` per name in `KINDS`, always all of them, in that order.
"""

from s3ta.evaluate.lint.harness import LintContext, model_state_restored
from s3ta.evaluate.lint.run import KINDS, lint

__all__ = ["KINDS", "LintContext", "lint", "model_state_restored"]
