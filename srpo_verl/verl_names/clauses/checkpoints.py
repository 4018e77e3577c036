"""Checkpoints: what is saved, loaded and pruned."""

from __future__ import annotations

from srpo_verl.verl_names.contract import Clause, accepts, calls_only, clause, says

_TRAINER = "verl.trainer.ppo.v1.trainer_base:PPOTrainer"
_DURABLE = "training.durable.durable_trainer"

CHECKPOINTS: tuple[Clause, ...] = (
    clause(
        f"{_TRAINER}._fetch_one_gen_batch",
        f"{_DURABLE}: names of prompts that say step and place",
        accepts(),
        says("batch_dict['uid'] = "),
    ),
    clause(f"{_TRAINER}._init_dataloader", f"{_DURABLE}: new data on resume", accepts(), says("self.train_dataloader")),
    clause(
        f"{_TRAINER}._load_checkpoint",
        f"{_DURABLE}: resume from a whole checkpoint",
        accepts(),
        says("resume_mode == 'disable'", "resume_mode == 'resume_path'", "'data.pt'", "self.global_steps = "),
    ),
    # What `_write` repeats. Whatever else verl's method saves would be missing in our checkpoints.
    clause(
        f"{_TRAINER}._save_checkpoint",
        f"{_DURABLE}._write: saves what this saves",
        accepts(),
        calls_only(
            "actor_ckpt_cfg.get",
            "local_mkdir_safe",
            "logger.info",
            "logger.warning",
            "open",
            "f.write",
            "os.path.join",
            "self.actor_rollout_wg.save_checkpoint",
            "self.checkpoint_callback.on_save",
            "self.config.actor_rollout_ref.actor.get",
            "self.config.trainer.get",
            "self.critic_wg.save_checkpoint",
            "self.train_dataloader.state_dict",
            "str",
            "torch.save",
            "tq.save_checkpoint",
        ),
        says("os.path.join(local_global_step_folder, 'data.pt')", "str(Role.Critic)", "checkpoint_dir="),
    ),
    clause(
        f"{_TRAINER}._compute_metrics",
        f"{_DURABLE}: guards at the end of a step",
        accepts("batch", "metrics", "timing_raw", "global_steps", "epoch"),
    ),
)
