"""What srpo_verl takes verl to be, name by name: overrides, private attributes, and code that is repeated here."""

from __future__ import annotations

from srpo_verl.verl_names.clauses.asynchronous import ASYNCHRONOUS
from srpo_verl.verl_names.clauses.checkpoints import CHECKPOINTS
from srpo_verl.verl_names.clauses.rollouts import ROLLOUTS
from srpo_verl.verl_names.clauses.step import STEP
from srpo_verl.verl_names.clauses.without_gpu import WITHOUT_GPU
from srpo_verl.verl_names.clauses.worker import WORKER
from srpo_verl.verl_names.contract import Clause

CLAUSES: tuple[Clause, ...] = (*STEP, *ASYNCHRONOUS, *CHECKPOINTS, *WORKER, *ROLLOUTS, *WITHOUT_GPU)
