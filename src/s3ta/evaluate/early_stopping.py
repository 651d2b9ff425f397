"""Who may leave: examples whose verdict nothing that is still to come can change, or whose budget is spent."""

from __future__ import annotations

from typing import Any

import numpy as np

from s3ta.evaluate.evaluation_task import EvaluationTask
from s3ta.evaluate.plan import AttackRound, may_leave
from s3ta.records import CLEAN, STATUS_OVER_BUDGET, STATUS_RUN, STATUS_SETTLED


class EarlyStopping:
    """What is known of each example, from the records of the rounds so far and from nothing else.

    So a resumed evaluation knows the same as one that was never stopped. An example leaves

    * the further restarts of an attack, once one restart left it wrong, and hit if there is a target, at *every* read-out:
      all read-outs then have their final verdict (E9);
    * all further attacks of a cascade, once it is wrong on the clean image or at the end of one attack;
    * an attack that costs more than is left of its budget."""

    def __init__(self, task: EvaluationTask) -> None:
        self._suite, self._settings, self._positions = task.suite, task.settings, task.positions
        self._index = {name: index for index, name in enumerate(task.ids)}
        self._wrong, self._settled = np.zeros((2, len(self._positions)), bool)
        self._spent = np.zeros(len(self._positions), np.int64)
        self._attack = CLEAN

    @property
    def matters(self) -> bool:
        """Whether any example may ever be skipped; if not, finished chunks need not be read."""
        return may_leave(self._suite, self._settings)

    def left_out(self, attack_round: AttackRound) -> dict[int, str]:
        """The places of the examples that this round leaves out, with the reason."""
        if attack_round.name != self._attack:
            self._attack = attack_round.name
            self._settled[:] = False
        out: dict[int, str] = {}
        if attack_round.attack is None:
            return out
        if self._settings.max_passes is not None:
            for number in np.flatnonzero(self._spent + attack_round.cost.total > self._settings.max_passes).tolist():
                out[self._positions[number]] = STATUS_OVER_BUDGET
        if not self._settings.exhaustive:
            gone = self._settled | (self._wrong if self._suite.cascade else False)
            for number in np.flatnonzero(gone).tolist():
                out[self._positions[number]] = STATUS_SETTLED
        return out

    def see(self, columns: dict[str, Any]) -> None:
        """Learn from the records of one chunk; columns as of the ledger."""
        ran = np.asarray(columns["status"]) == STATUS_RUN
        if not ran.any():
            return
        indices = np.array([self._index[str(example)] for example in columns["example_id"]])[ran]
        steps = np.asarray(columns["num_attack_steps"])[ran]
        correct, hit, target = (np.asarray(columns[name])[ran].astype(int) for name in ("correct", "hit", "target"))
        done = (correct == 0) & ((hit == 1) | (target < 0))
        everywhere = np.ones(len(self._positions), bool)
        np.logical_and.at(everywhere, indices, done)
        seen = np.unique(indices)
        self._settled[seen] |= everywhere[seen]
        last = steps == steps.max()
        self._wrong[indices[last]] |= correct[last] == 0
        spent = np.asarray(columns["num_gradients"])[ran] + np.asarray(columns["num_forwards"])[ran]
        np.add.at(self._spent, indices[last], spent[last])
