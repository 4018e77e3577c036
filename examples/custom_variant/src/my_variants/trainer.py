"""Trainer, worker and objective of one's own (`trainer.v1.trainer_mode=my_trainer`), where no smaller variant will do.

They import verl, so this module is named in `register.trainer` and not imported beside the other variants.
"""

from srpo_verl.training.step.trainer import SRPOTrainer
from srpo_verl.training.worker.objective import SRPOObjective
from srpo_verl.training.worker.worker import SRPOWorker


class MyObjective(SRPOObjective):
    """The same loss; says in the metrics how much of it is distillation."""

    def on_outputs(self, model_output, data, dp_group):
        loss, metrics = super().on_outputs(model_output, data, dp_group)
        if "srpo/sdpo_loss" in metrics:
            metrics["srpo/my_sdpo_loss"] = metrics["srpo/sdpo_loss"]
        return loss, metrics


class MyWorker(SRPOWorker):
    """Runs that objective."""

    objective_class = MyObjective


class MyTrainer(SRPOTrainer):
    """Starts that worker, and counts the groups of each step."""

    worker_class = MyWorker

    def _compute_advantage(self, batch, metrics):
        metrics["srpo/my_groups"] = float(self.this_step.plan.groups.groups)
        return super()._compute_advantage(batch, metrics)
